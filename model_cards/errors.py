"""What went wrong between this machine and the Hub, in one sentence."""

import errno
import json
import re

from huggingface_hub import constants
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

NO_TOKEN = "there is no access token here: log in with `hf auth login`, or set HF_TOKEN"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PushError(OSError):
    """The Hub did not take the model, or will not."""


def explain(error: BaseException, repo_id: str | None = None) -> str:
    """What is wrong and what to do, as the end of a sentence without a full stop.

    Args:
        error: what `huggingface_hub` or the network raised.
        repo_id: the repository in question.
    """
    named = re.match(r"/(?:api/models/)?([^/]+/[^/]+?)(?:\.git)?/", asked_path(error))
    what = repo_id or (named[1] if named else "the repository")
    if isinstance(error, PushError):
        words = str(error).rstrip(".")
        return f"{words[:1].lower()}{words[1:]}"
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    if isinstance(error, LocalTokenNotFoundError):
        return NO_TOKEN
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on: unset HF_HUB_OFFLINE"
    if isinstance(error, HFValidationError):
        return f"{what!r} is not a name of a repository: use letters, digits and . _ - as in name/model"
    if isinstance(error, HfHubHTTPError):
        return _of_answer(error, what)
    if isinstance(error, HTTPError | json.JSONDecodeError | ConnectionError):
        return (
            f"the Hub at {constants.ENDPOINT} cannot be reached or broke off ({type(error).__name__}): try again later"
        )
    if isinstance(error, OSError) and error.errno in _FULL:
        return "there is no space left on the disk: free some"
    return shortened(error)


def _of_answer(error: HfHubHTTPError, what: str) -> str:
    status = status_of(error)
    if isinstance(error, GatedRepoError):
        return f"{what} is gated: ask for access at {constants.ENDPOINT}/{what}, and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"{what} has no such branch, tag or commit: check the revision"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no {what}, or it is private and your token may not see it: check name and token"
    if status == 401:
        return "the Hub does not accept the access token: make a new one and log in with `hf auth login`"
    if status == 403:
        return f"your token may not write to {what}: it needs the role 'write', and you a place in that namespace"
    if status == 404:
        return f"there is nothing of that name on the Hub ({what})"
    if status in (409, 412):
        return f"{what} was changed by somebody else in the meantime: try again"
    if status == 429:
        return "the Hub takes no more requests from you for now (rate limit): try again later"
    if status is not None and status >= 500:
        return f"the Hub is not well (HTTP {status}): try again later"
    if isinstance(error, BadRequestError):
        return f"the Hub refuses it: {shortened(error)}"
    return shortened(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer."""
    return getattr(getattr(error, "response", None), "status_code", None)


def asked_path(error: BaseException) -> str:
    """The path of the address that was asked for; empty where the error does not know it."""
    try:
        return str((getattr(error, "response", None) or error).request.url.path)  # type: ignore[union-attr]
    except (AttributeError, RuntimeError):
        return ""


def shortened(error: BaseException) -> str:
    """An unforeseen error's own words on one line."""
    words = " ".join(str(error).split())
    return (words if len(words) <= 300 else words[:299] + "…").rstrip(".") or type(error).__name__
