"""The demo page: drop an image and see what a model says and what it looked at. `antehoc demo` opens it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antehoc_hf.demo.analysis import analyse
    from antehoc_hf.demo.models import load_demo_model
    from antehoc_hf.demo.space import export_space

# Looked up on first use: only the page needs gradio, and a Space is written without loading a model.
_HOMES = {"analyse": "analysis", "export_space": "space", "load_demo_model": "models"}

__all__ = ["analyse", "export_space", "load_demo_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"antehoc_hf.demo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'antehoc_hf.demo' has no attribute {name!r}")
