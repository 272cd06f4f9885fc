"""The demo page: drop an image and see what a model says and what it looked at. `antehoc demo` opens it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antehoc_hf.demo.analysis import analyse
    from antehoc_hf.demo.gradio_app import launch_options
    from antehoc_hf.demo.models import load_demo_model
    from antehoc_hf.demo.page import build_page, open_page
    from antehoc_hf.demo.space import export_space

# Looked up on first use: only the page needs gradio, and a Space is written without loading a model.
_HOMES = {
    "analyse": "analysis",
    "build_page": "page",
    "export_space": "space",
    "launch_options": "gradio_app",
    "load_demo_model": "models",
    "open_page": "page",
}

__all__ = ["analyse", "build_page", "export_space", "launch_options", "load_demo_model", "open_page"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"antehoc_hf.demo.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'antehoc_hf.demo' has no attribute {name!r}")
