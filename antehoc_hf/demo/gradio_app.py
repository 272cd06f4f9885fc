"""Gradio as the page needs it: nothing fetched or sent elsewhere, and every value of a request checked."""

import os
from functools import cache
from typing import Any

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.demo.limits import Gate
from antehoc_hf.demo.style import CSS, FONTS, MONOSPACED
from antehoc_hf.demo.uploads import LARGEST_FILE, REFUSED, Kind, checked_value, upload_folder

INSTALL = "The demo page needs gradio: install it with `pip install 'antehoc-hf[demo]'`."


def launch_options() -> dict[str, Any]:
    """How the page is meant to be launched: its looks, nothing fetched from elsewhere, no large files, no entrance to
    what the page does not need.
    """
    gradio = needed_gradio()
    from starlette.middleware import Middleware

    theme = gradio.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=list(FONTS), font_mono=list(MONOSPACED), text_size="lg"
    ).set(  # the theme's own greys are too light to be read
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color_dark="*neutral_300",
    )
    return {
        "theme": theme,
        "css": CSS,
        "footer_links": [],
        "max_file_size": LARGEST_FILE,
        "app_kwargs": {"middleware": [Middleware(Gate)]},
        "enable_monitoring": False,
        "run_history": False,
        "mcp_server": False,
        "pwa": False,
        "ssr_mode": False,
        "state_session_capacity": 64,
    }


def needed_gradio() -> Any:
    """The module gradio, which shall send nothing home and keep uploads in a folder of this process alone.

    Raises:
        UsageError: if it is not installed.
    """
    upload_folder()  # gradio reads its name when it is imported
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
        from gradio import Blocks  # noqa: F401 – a folder called gradio where one works is a module as well, an empty one
    except ImportError as error:
        raise UsageError(INSTALL) from error
    return gradio


@cache
def guarded_blocks(gradio: Any) -> Any:
    """`gradio.Blocks` where every value of every request is checked before anything is made of it."""
    kinds: dict[type, Kind] = {gradio.Image: "image", gradio.CheckboxGroup: "several"}

    class GuardedBlocks(gradio.Blocks):  # type: ignore[misc]
        async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
            try:
                # What pages keep between events (`State`) is the server's own: gradio ignores what is sent for it.
                checked = [
                    None if block.stateful else checked_value(value, kinds.get(type(block), "one"))
                    for block, value in zip(block_fn.inputs, inputs, strict=True)
                ]
                return await super().preprocess_data(block_fn, checked, *args, **kwargs)
            except (ValueError, gradio.Error):  # also where there are too few or too many, or a choice that is none
                raise gradio.Error(REFUSED, print_exception=False) from None

    return GuardedBlocks
