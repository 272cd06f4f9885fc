"""`antehoc demo`: the demo page on this machine, or as a Hugging Face Space."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from antehoc_hf.commands.errors import UsageError, check_model
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.demo.space import PACKAGE, export_space

# What `make demo` trains.
_TRAINED = ("outputs/demo", "outputs/demo-landmarks", "outputs/demo-captions")


@dataclass
class DemoArguments:
    """Which models are shown, and where."""

    group: ClassVar[str] = "demo"

    model: list[str] = option(
        [],
        "Folders or Hub names of ante-hoc models. By default those that `make demo` has trained.",
        positional="MODEL…",
    )
    port: int | None = option(None, "Port of the page. By default the first free one from 7860.")
    host: str = option("127.0.0.1", "Address to listen at; 0.0.0.0 for the whole network.")
    share: bool = option(False, "Open a public address too, through gradio's servers, for 72 hours.")
    examples: list[str] = option([], "Images, or folders of them, to choose from. By default built-in drawings.")
    export_space: str | None = option(None, "Write a Hugging Face Space into this folder instead of opening the page.")
    package: str = option(PACKAGE, "What the Space installs this project from, as pip understands it.")
    overwrite: bool = option(False, "Let the Space's files replace others of their names.")

    def __post_init__(self) -> None:
        if self.port is not None and not 0 < self.port < 65536:
            raise UsageError(f"port must be in 1 … 65535, not {self.port}.")
        for model in self.model:
            check_model(model)


def parse(argv: Sequence[str]) -> DemoArguments:
    """The options; see [`OptionParser`] for the errors."""
    return OptionParser(DemoArguments, prog="antehoc demo").parse(argv, DemoArguments)[0]


def run(options: DemoArguments) -> None:
    """Opens the page and waits until it is interrupted, or writes a Space.

    Raises:
        ValueError: for options that make no sense, or if gradio is not installed, in one sentence.
        OSError: if a model cannot be loaded.
    """
    if options.export_space is not None:
        files = export_space(options.export_space, options.model, package=options.package, overwrite=options.overwrite)
        _report_space(Path(options.export_space), files)
        return
    # Only now: the page needs gradio, a Space does not.
    from antehoc_hf.commands.inputs import image_files
    from antehoc_hf.demo.gradio_app import needed_gradio
    from antehoc_hf.demo.page import open_page

    needed_gradio()  # before a model is loaded for nothing
    models = options.model or [folder for folder in _TRAINED if Path(folder, "config.json").exists()]
    if not models:
        raise UsageError(
            "There is no model: name one with --model; `make demo` trains three small ones in a few minutes, and "
            "they are found here."
        )
    examples = image_files(options.examples) if options.examples else None
    open_page(models, host=options.host, port=options.port, share=options.share, examples=examples)


def _report_space(folder: Path, files: Sequence[Path]) -> None:
    print(f"Written to {folder}: {', '.join(path.name for path in files)}")
    print("To put it on the Hub:")
    print("  hf repos create NAMESPACE/NAME --repo-type space --space-sdk gradio")
    print(f"  hf upload NAMESPACE/NAME {folder} --repo-type space")
