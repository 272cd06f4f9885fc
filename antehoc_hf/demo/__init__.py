"""The demo page: drop an image and see what a model says and what it looked at. `antehoc demo` opens it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antehoc_hf.demo.analysis import analyse
    from antehoc_hf.demo.models import DemoModel, load_demo_model
    from antehoc_hf.demo.page import build_page, launch_options, open_page
    from antehoc_hf.demo.space import export_space

# Looked up on first use: only the page needs gradio, and a Space is written without loading a model.
_LAZY = {
    "DemoModel": "antehoc_hf.demo.models",
    "analyse": "antehoc_hf.demo.analysis",
    "build_page": "antehoc_hf.demo.page",
    "export_space": "antehoc_hf.demo.space",
    "launch_options": "antehoc_hf.demo.page",
    "load_demo_model": "antehoc_hf.demo.models",
    "open_page": "antehoc_hf.demo.page",
}

__all__ = ["DemoModel", "analyse", "build_page", "export_space", "launch_options", "load_demo_model", "open_page"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'antehoc_hf.demo' has no attribute {name!r}")
