"""How much a visitor may ask of the page: seconds, waiting requests, bytes, and no more than the page needs."""

import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from antehoc_hf.demo.uploads import LARGEST_FILE, is_full

LONGEST_REQUEST = 120.0  # seconds
MOST_WAITING = 64  # requests; gradio answers more with "queue is full"
LARGEST_BODY = 2**20  # bytes of a request that uploads nothing
_ENVELOPE = 2**16  # bytes around an uploaded file

# What gradio serves besides the page: it starts ffmpeg, fetches addresses, or writes files for whoever asks.
_CLOSED = re.compile(
    r"/(process_recording|undo-vibe|vibe-|run-history|runs\b|deep_link|component_server|custom_component|monitoring"
    r"|dev/|stream/|proxy=|file=\s*\w+:)",
    re.IGNORECASE,
)

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]

_request = threading.local()


class TimeIsUpError(ValueError):
    """A request takes longer than `LONGEST_REQUEST`."""

    def __init__(self) -> None:
        super().__init__(f"This takes longer than the {LONGEST_REQUEST:.0f} seconds that a request may take.")


@contextmanager
def limited_time(seconds: float | None = None) -> Iterator[None]:
    """Work of this thread ends with [`TimeIsUpError`] after so many seconds, by default `LONGEST_REQUEST`."""
    _request.end = time.monotonic() + (LONGEST_REQUEST if seconds is None else seconds)
    try:
        yield
    finally:
        _request.end = None


def time_left() -> float | None:
    """Seconds of this thread's request; None outside of one.

    Raises:
        TimeIsUpError: if there are none.
    """
    end = getattr(_request, "end", None)
    if end is None:
        return None
    left: float = end - time.monotonic()
    if left <= 0:
        raise TimeIsUpError
    return left


def watch(model: nn.Module) -> None:
    """From now on every pass through the model, or a part of it, first asks whether there is time left."""
    for module in (model, *model.children()):
        module.register_forward_pre_hook(_ask)


def _ask(module: nn.Module, arguments: object) -> None:
    time_left()


class ModelLock:
    """Held while a model is used, as often as one thread likes; waits no longer than the request may take."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        left = time_left()
        if not self._lock.acquire(timeout=-1 if left is None else left):
            raise TimeIsUpError

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


class Gate:
    """ASGI middleware: requests to what the page does not need, or with too large a body, are refused unread."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        status = self._refused(scope) if scope["type"] == "http" else None
        if status is None:
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    def _refused(scope: _Message) -> int | None:
        """An HTTP status, or None."""
        if _CLOSED.search(scope["path"]):
            return 404
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411
        uploads = scope["path"].rstrip("/").endswith("/upload")
        if int(length) > (LARGEST_FILE + _ENVELOPE if uploads else LARGEST_BODY):
            return 413
        return 507 if uploads and is_full() else None
