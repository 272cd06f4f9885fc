"""Packages that only some methods need."""

import random
from importlib import import_module
from typing import Any


def needed(module: str, extra: str = "explainers") -> Any:
    """A module of an extra package.

    Raises:
        ImportError: if it is not installed, with the command that installs it.
    """
    state = random.getstate()  # which packages may draw from when they are first imported, as rich does
    try:
        return import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.split(".")[0], module.split(".")[0])
        raise ImportError(
            f"This method needs the package {package!r}: install it with `pip install 'antehoc-hf[{extra}]'`."
        ) from error
    finally:
        random.setstate(state)
