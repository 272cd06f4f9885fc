"""The error of a command line, and the packages it misses. Nothing heavy is imported: everything may raise it."""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

_OF_CAPTUM = ("integrated-gradients", "leave-one-out", "shapley-sampling", "kernel-shap")


class UsageError(ValueError):
    """The command line or a recipe asks for something that makes no sense; one sentence."""


def check_least(options: object, least: Mapping[str, float]) -> None:
    """Raises a UsageError if an option, or one of its numbers, is below what it has to be at least; None is not."""
    for name, low in least.items():
        value = getattr(options, name)
        for number in value if isinstance(value, list) else [value]:
            if number is not None and not low <= number < math.inf:
                raise UsageError(f"{name} must be at least {low}, not {number}.")


def need(package: str, extra: str, what: str) -> None:
    """Before any work starts.

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
