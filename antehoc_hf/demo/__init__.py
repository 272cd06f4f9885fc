"""The demo page: drop an image and see what a model says and what it looked at. `antehoc demo` opens it."""

from typing import TYPE_CHECKING

from antehoc_hf.lazy import lazy_names

if TYPE_CHECKING:
    from antehoc_hf.demo.analysis import analyse
    from antehoc_hf.demo.models import load_demo_model
    from antehoc_hf.demo.space import export_space

__all__ = ["analyse", "export_space", "load_demo_model"]

# Looked up on first use: only the page needs gradio, and a Space is written without loading a model.
_HOMES = {"analyse": "analysis", "export_space": "space", "load_demo_model": "models"}
__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{home}" for name, home in _HOMES.items()})
