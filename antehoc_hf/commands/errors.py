"""The error of a command line, and the packages it misses. Nothing heavy is imported: everything may raise it."""

from collections.abc import Sequence
from importlib.util import find_spec

_OF_CAPTUM = ("integrated-gradients", "leave-one-out", "shapley-sampling", "kernel-shap")


class UsageError(ValueError):
    """The command line or a recipe asks for something that makes no sense; one sentence."""


def need(package: str, extra: str, what: str) -> None:
    """
    Before any work starts.

    Raises:
        UsageError: if a package is not installed, with the command that installs it.
    """
    if find_spec(package) is None:
        raise UsageError(f"{what} needs the package {package}: install it with `pip install 'antehoc-hf[{extra}]'`.")


def need_packages_of(explainers: Sequence[str]) -> None:
    """The same for explanation methods by name."""
    for name in explainers:
        if name in _OF_CAPTUM:
            need("captum", "explainers", name)
        if name == "kernel-shap":
            need("sklearn", "concepts", name)


def need_to_export() -> None:
    """The same for ONNX."""
    for package in ("onnx", "onnxscript"):
        need(package, "onnx", "Exporting")
