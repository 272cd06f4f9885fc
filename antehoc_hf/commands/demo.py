"""`antehoc demo`: the demo page on this machine, or as a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.inputs import image_files
from antehoc_hf.demo.space import PACKAGE, export_space
from antehoc_hf.training.runs.settings import OptionParser

# What `make demo` trains.
_TRAINED = ("outputs/demo", "outputs/demo-landmarks", "outputs/demo-captions")


@dataclass
class DemoArguments:
    """Which models are shown, and where."""

    _argument_group_name: ClassVar[str] = "demo"

    model: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders or Hub names of ante-hoc models. None: those that `make demo` trained."},
    )
    port: int | None = field(default=None, metadata={"help": "Of the page. None: the first free one from 7860."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen at; 0.0.0.0 for the whole network."})
    share: bool = field(
        default=False, metadata={"help": "Open a public address too, through gradio's servers, for 72 hours."}
    )
    examples: list[str] = field(
        default_factory=list, metadata={"help": "Images, or folders of them, to choose from. None: built-in drawings."}
    )
    export_space: str | None = field(
        default=None, metadata={"help": "Write a Hugging Face Space into this folder instead of opening the page."}
    )
    package: str = field(
        default=PACKAGE, metadata={"help": "What the Space installs this project from, as pip understands it."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Let the Space's files replace others of their names."})


def demo(argv: Sequence[str]) -> Any:
    """
    Opens the page and waits until it is interrupted, or writes a Space.

    Args:
        argv: flags, see `antehoc demo --help`. First words without dashes are models.

    Returns:
        The page; or the files of the Space.

    Raises:
        ValueError: for options that make no sense, or if gradio is not installed, in one sentence.
        OSError: if a model cannot be loaded.
    """
    arguments = list(argv)
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--model", *arguments]
    [options] = OptionParser((DemoArguments,), prog="antehoc demo").parse_options(arguments)
    if options.export_space is not None:
        files = export_space(options.export_space, options.model, package=options.package, overwrite=options.overwrite)
        _tell_space(Path(options.export_space), files)
        return files
    if options.port is not None and not 0 < options.port < 65536:
        raise UsageError(f"port must be in 1 … 65535, not {options.port}.")
    # Only now: the page needs gradio, a Space does not.
    from antehoc_hf.demo.page import needed_gradio, open_page

    needed_gradio()  # before a model is loaded for nothing
    models = options.model or [folder for folder in _TRAINED if Path(folder, "config.json").exists()]
    if not models:
        raise UsageError(
            "There is no model: name one with --model; `make demo` trains three small ones in a few minutes, and "
            "they are found here."
        )
    examples = image_files(options.examples) if options.examples else None
    return open_page(models, host=options.host, port=options.port, share=options.share, examples=examples)


def _tell_space(folder: Path, files: Sequence[Path]) -> None:
    print(f"Written to {folder}: {', '.join(path.name for path in files)}")
    print("To put it on the Hub:")
    print("  hf repos create NAMESPACE/NAME --repo-type space --space-sdk gradio")
    print(f"  hf upload NAMESPACE/NAME {folder} --repo-type space")
