"""A model's folder to the Hub, patiently, without losing anything here or a person's card there."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, HfApi, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from antehoc_hf.model_cards.card import is_ours
from antehoc_hf.model_cards.errors import NO_TOKEN, PushError, asked_path, explain, status_of
from antehoc_hf.model_cards.travel import CARD_FILE, FolderError, check_links, travelling_files

T = TypeVar("T")

# Seconds between tries of those requests that huggingface_hub does not repeat by itself.
WAITS = (1.0, 2.0, 4.0)
_LONGEST_WAIT = 60.0
_ARGUMENTS_FILE = "training_args.bin"
_NOT_REPEATED = ("/api/repos/create", "/api/validate-yaml", "/commit/", "/branch/", "/resolve/")
_BACKGROUND = ThreadPoolExecutor(max_workers=1, thread_name_prefix="push")


@dataclass(frozen=True)
class Pushed:
    """Where a model went: its repository, the commit's address, and whether a person's card there was kept."""

    repo_id: str
    url: str
    kept_card: bool

    def message(self) -> str:
        """For the terminal."""
        kept = "\nThe card there was written by a person and was kept." if self.kept_card else ""
        return f"The model is on the Hub: {self.repo_id} ({self.url}){kept}"


def create_repository(repo_id: str, private: bool | None = None, token: str | None = None) -> str:
    """Makes the repository, or finds it made.

    Args:
        repo_id: `"name"`, in the user's own namespace, or `"namespace/name"`.
        private: if it is new.
        token: None: the one that is logged in.

    Returns:
        `str`: its full name.

    Raises:
        PushError: if the Hub refuses or cannot be reached.
    """
    with _explained(repo_id):
        _check_token(token)
        api = HfApi(token=token)
        return patiently(lambda: api.create_repo(repo_id, private=private, exist_ok=True)).repo_id


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    revision: str | None = None,
    message: str = "Upload model",
    token: str | None = None,
    extra_folder: str | None = None,
) -> Pushed:
    """Pushes what [`travelling_files`] names, in one commit: all of it arrives, or nothing.

    A card on the Hub that a person wrote is kept, unless the card here is a person's as well.

    Args:
        folder: of a trained model; only read.
        repo_id: `"namespace/name"`, as [`create_repository`] gave it.
        revision: branch; made if it is not there.
        message: of the commit.
        token: None: the one that is logged in.
        extra_folder: a folder within it that is pushed as well, but for pickled arguments: they hold the token.

    Raises:
        FolderError: if the folder holds no whole model, or a link to elsewhere.
        PushError: if the Hub refuses or cannot be reached.
    """
    names = travelling_files(folder)
    api = HfApi(token=token)
    with _explained(repo_id):
        if revision is not None:
            patiently(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
        kept = CARD_FILE in names and _is_ours(folder) and _holds_a_persons_card(repo_id, revision, token)
        sent = [name for name in names if not (kept and name == CARD_FILE)]
        if extra_folder is not None:
            paths = sorted(path for path in (folder / extra_folder).rglob("*") if path.is_file())
            sent += [path.relative_to(folder).as_posix() for path in paths if path.name != _ARGUMENTS_FILE]
            check_links(folder, sent)

        def commit() -> str:
            # New operations at each try: the Hub is asked what it has, so that what a lost answer left done is seen.
            added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name)) for name in sent]
            return api.create_commit(repo_id, added, commit_message=message, revision=revision).commit_url

        return Pushed(repo_id, patiently(commit), kept)


def in_background(act: Callable[[], T]) -> "Future[T]":
    """Runs it in a thread, one after the other."""
    return _BACKGROUND.submit(act)


def patiently(act: Callable[[], T]) -> T:
    """Repeats what failed for a passing reason (connection, rate limit, server), after growing pauses or as long as
    the Hub asks for. huggingface_hub repeats most requests by itself; those are not repeated here once more.
    """
    for wait in WAITS:
        try:
            return act()
        except (HTTPError, JSONDecodeError) as error:
            if not _passes(error) or not _is_repeated_by_nobody(error):
                raise
            time.sleep(max(wait, _asked_for(error)))
    return act()


def _passes(error: Exception) -> bool:
    status = status_of(error)
    return status is None or status == 429 or status >= 500


def _is_repeated_by_nobody(error: Exception) -> bool:
    if isinstance(error, JSONDecodeError):  # a proxy's page where the Hub's JSON was expected
        return True
    return any(part in asked_path(error) for part in _NOT_REPEATED)


def _asked_for(error: Exception) -> float:
    headers = getattr(getattr(error, "response", None), "headers", {})
    try:
        return min(float(headers.get("Retry-After", 0)), _LONGEST_WAIT)
    except ValueError:  # a date
        return 0.0


def _is_ours(folder: Path) -> bool:
    return is_ours((folder / CARD_FILE).read_text(encoding="utf-8", errors="replace"))


def _holds_a_persons_card(repo_id: str, revision: str | None, token: str | None) -> bool:
    def fetch() -> str:
        # hf_hub_download would take a Hub that is not well for one without a card.
        url, headers = hf_hub_url(repo_id, CARD_FILE, revision=revision), build_hf_headers(token=token)
        response = get_session().get(url, headers=headers, follow_redirects=True)
        hf_raise_for_status(response)
        return response.text

    try:
        return not is_ours(patiently(fetch))
    except RemoteEntryNotFoundError:
        return False


def _check_token(token: str | None) -> None:
    """Without one the Hub would find an existing repository, and then deny that it exists."""
    if token is None and get_token() is None:
        raise PushError(f"T{NO_TOKEN[1:]}.")


@contextmanager
def _explained(repo_id: str) -> Iterator[None]:
    try:
        yield
    except (PushError, FolderError):
        raise
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise _push_error(error, repo_id) from error
    except RuntimeError as error:  # as huggingface_hub reports a large file that did not arrive
        if not isinstance(error.__cause__, HTTPError | OSError):
            raise
        raise _push_error(error.__cause__, repo_id) from error


def _push_error(error: BaseException, repo_id: str) -> PushError:
    text = explain(error, repo_id)
    return PushError(f"{text[:1].upper()}{text[1:]}.")
