"""The error of a command line, and the files and packages it misses. Nothing heavy is imported: it is everywhere."""

import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from antehoc_hf.explainers.registry import check_explainer

_OF_CAPTUM = ("integrated-gradients", "leave-one-out", "shapley-sampling", "kernel-shap")


class UsageError(ValueError):
    """The command line or a recipe asks for something that makes no sense; one sentence."""


def raised_by_us(error: BaseException) -> bool:
    """Whether the line that raised an error is this project's, which has then worded it."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).startswith("antehoc_hf.")


@contextmanager
def in_a_sentence(what: str) -> Iterator[None]:
    """What other libraries make of a damaged file becomes a UsageError that begins with `what`, and names their
    reason; errors of this project, and those of the system that name their file, pass.
    """
    try:
        yield
    except Exception as error:  # of whatever library reads the file
        worded = isinstance(error, ValueError | OSError) and raised_by_us(error)
        if worded or isinstance(error, UsageError) or (isinstance(error, OSError) and error.filename):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UsageError(f"{what} ({reason}).") from error


def check_least(options: object, least: Mapping[str, float]) -> None:
    """Raises a UsageError if an option, or one of its numbers, is below what it has to be at least; None is not."""
    for name, low in least.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not low <= number < math.inf:
                raise UsageError(f"{name} must be at least {low}, not {number}.")


def check_images(given: Sequence[str]) -> None:
    """Raises a UsageError if no image is given, or a file or folder does not exist."""
    if not given:
        raise UsageError("There is no image: name files or folders of images before the options.")
    for path in given:
        if not path or not Path(path).exists():  # Path("") is the working folder
            raise UsageError(f"{path or 'An image with an empty name'} does not exist.")


def looks_like_path(name: str) -> bool:
    """Whether a data set's name is clearly a path, and none on the Hub."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def check_data(name: str | Path | None) -> None:
    """Raises a UsageError if what is clearly the path of a data set leads nowhere, or to an empty folder; None is not
    looked at.
    """
    path = Path(name or ".").expanduser()
    if name and looks_like_path(str(name)) and not path.exists():
        raise UsageError(f"There is no folder {str(path)!r}: check the path of the data set.")
    if name and path.is_dir() and not any(path.iterdir()):
        raise UsageError(
            f"There is no image and no table in {str(name)!r} that can be read (it is empty): check the path."
        )


def check_model(name: str | Path) -> None:
    """Raises a UsageError if what is clearly the path of a model, and no name on the Hub, leads nowhere."""
    first, *inner = str(name).split("/")
    is_path = first in ("", ".", "..", "~", "outputs") or len(inner) > 1 or Path(first).is_dir()
    if is_path and not Path(name).exists():
        hint = "run `make demo` first" if first == "outputs" and "demo" in inner[:1] else "check the path of the model"
        raise UsageError(f"There is no folder {str(name)!r}: {hint}.")


def need(package: str, extra: str, what: str) -> None:
    """Before any work starts.

    Raises:
        UsageError: if a package is not installed, with the command that installs it.
    """
    if find_spec(package) is None:
        raise UsageError(f"{what} needs the package {package}: install it with `pip install 'antehoc-hf[{extra}]'`.")


def check_explainers(names: Sequence[str]) -> None:
    """The same for explanation methods by name; raises a ValueError if there is no such method."""
    for name in names:
        check_explainer(name)
        if name in _OF_CAPTUM:
            need("captum", "explainers", name)
        if name == "kernel-shap":
            need("sklearn", "concepts", name)


def need_to_export(int8: bool = False) -> None:
    """The same for ONNX, and for storing it in eight bits."""
    for package in ("onnx", "onnxscript", *(["onnxruntime"] if int8 else [])):
        need(package, "onnx", "Exporting")
