"""`antehoc export`: a model as ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from antehoc_hf.commands.options import OptionParser, option


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    group: ClassVar[str] = "export"

    model: str = option(help="Folder or Hub name of a trained model.", positional="MODEL")
    output: str | None = option(None, "The file to write. By default model.onnx in the model's folder.", short="-o")


def parse(argv: Sequence[str]) -> ExportArguments:
    """The options; see [`OptionParser`] for the errors."""
    parser = OptionParser(ExportArguments, prog="antehoc export", description="Writes a model as ONNX.")
    return parser.parse(argv, ExportArguments)[0]


def run(options: ExportArguments) -> None:
    """
    Exports the model.

    Raises:
        ValueError: if it is not a model of ours, or the packages that ONNX needs are missing.
        OSError: if the model cannot be loaded or the file not written.
    """
    from antehoc_hf.export import export_onnx, loaded_model

    folder = Path(options.model)
    output = Path(options.output or (folder / "model.onnx" if folder.is_dir() else "model.onnx"))
    model = loaded_model(options.model)
    path = export_onnx(model, output)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): pixel_values → {', '.join(model.onnx_outputs)}")
