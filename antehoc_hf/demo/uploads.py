"""What a visitor's request may name: an image uploaded to the page, and nothing else of the machine it runs on.

A request reaches the page's functions with whatever JSON its sender wrote. Gradio itself looks into file objects that
are marked as such, fetches them where their path is a URL, and passes others on unseen, so values are checked before
gradio sees them, see [`checked_value`], and files once more where they are opened, see [`read_upload`].
"""

import atexit
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

LARGEST_FILE = 30 * 2**20  # bytes
MOST_BYTES, MOST_FILES = 2 * 2**30, 10_000  # of all visitors' files together
Kind = Literal["image", "several", "one"]
# The same for whatever is refused, so that it does not say what there is on the machine.
REFUSED = "This is not an image that was uploaded to this page: choose or drop one first."


class RefusedError(ValueError):
    """A request names something other than an image that was uploaded to the page."""

    def __init__(self) -> None:
        super().__init__(REFUSED)


@cache
def upload_folder() -> Path:
    """Where gradio keeps what visitors upload: a folder of this process alone, removed at its end, instead of one that
    all pages on the machine share; or the one that the variable GRADIO_TEMP_DIR names.
    """
    named = os.environ.get("GRADIO_TEMP_DIR")
    if not named:
        named = os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="antehoc-demo-")
        atexit.register(shutil.rmtree, named, ignore_errors=True)
    folder = Path(named)
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def read_upload(path: object) -> bytes:
    """The content of an uploaded file.

    Raises:
        RefusedError: unless it is a regular file within [`upload_folder`], reached by no link, of at most
            `LARGEST_FILE` bytes.
    """
    descriptor = _opened(path)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise RefusedError
    return content


def is_full() -> bool:
    """Whether [`upload_folder`] holds as much as it may; gradio empties it in time."""
    files = bytes_ = 0
    for folder, _, names in os.walk(upload_folder()):
        for name in names:
            with suppress(OSError):  # just deleted
                bytes_ += os.lstat(os.path.join(folder, name)).st_size
        files += len(names)
        if files > MOST_FILES or bytes_ > MOST_BYTES:
            return True
    return False


def checked_value(value: object, kind: Kind) -> object:
    """A component's value as a request has it: for an image, None or the path of an upload, without the other entries
    of gradio's file objects (such as `url`); for other components, a text or a number, or `"several"` of these.

    Raises:
        RefusedError: for anything else.
    """
    if kind == "image":
        if value is None:
            return None
        path = value.get("path") if isinstance(value, dict) else None
        os.close(_opened(path))
        return {"path": path, "meta": {"_type": "gradio.FileData"}}
    values = value if kind == "several" and isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise RefusedError
    return value


def _opened(path: object) -> int:
    """The descriptor of an uploaded file, open for reading."""
    try:
        real = _inside(path)
        if os.path.realpath(real) != str(real):  # a link
            raise RefusedError
        # Opening a pipe would wait for somebody to write into it.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):  # ValueError: what cannot be a path, such as one with a null byte
        raise RefusedError from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE:
        os.close(descriptor)
        raise RefusedError
    return descriptor


def _inside(path: object) -> Path:
    """The path, which may name the upload folder through a link (as /tmp is on some systems), from its real one on."""
    if not isinstance(path, str) or not os.path.isabs(path) or ".." in Path(path).parts:
        raise RefusedError
    for name in (upload_folder(), Path(os.path.abspath(os.environ["GRADIO_TEMP_DIR"]))):
        if Path(path).is_relative_to(name) and Path(path) != name:
            return upload_folder() / Path(path).relative_to(name)
    raise RefusedError
