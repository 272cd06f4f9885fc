"""`antehoc export`: a model as ONNX, or as a program of `torch.export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from antehoc_hf.commands.errors import UsageError, check_least, check_model, need_to_export
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import output_folder, overwrite_option


@dataclass
class ExportArguments:
    """What is exported, and where to."""

    group: ClassVar[str] = "export"

    model: str = option(help="Folder or Hub name of a trained model.", positional="MODEL")
    output: str | None = option(
        None, "The file to write: .onnx, or .pt2 for torch.export. By default model.onnx in the folder.", short="-o"
    )
    overwrite: bool = overwrite_option()
    batch_size: int | None = option(None, "Images that the graph takes at a time; by default any number.")
    int8: bool = option(False, "ONNX with weights in eight bits: about half the size, nearly the same map.")

    def __post_init__(self) -> None:
        if self.output is not None and Path(self.output).suffix not in (".onnx", ".pt2"):
            raise UsageError(f"output {self.output!r} must end in .onnx, or in .pt2 for torch.export.")
        check_least(self, {"batch_size": 1})
        check_model(self.model)
        if self.output is None or Path(self.output).suffix == ".onnx":
            need_to_export(self.int8)
        elif self.int8:
            raise UsageError(f"--int8 is for ONNX: name a file that ends in .onnx, not {self.output!r}.")


def parse(argv: Sequence[str]) -> ExportArguments:
    """The options; see [`OptionParser`] for the errors."""
    parser = OptionParser(ExportArguments, prog="antehoc export")
    return parser.parse(argv, ExportArguments)[0]


def run(options: ExportArguments) -> None:
    """Exports the model.

    Raises:
        ValueError: if it is not a model of ours, or the packages that ONNX needs are missing.
        OSError: if the model cannot be loaded or the file not written.
    """
    from antehoc_hf.export import export_onnx, export_program

    folder = Path(options.model)
    output = Path(options.output or (folder / "model.onnx" if folder.is_dir() else "model.onnx"))
    with output_folder(output.parent, [output.name], options.overwrite, alone=False, name="output"):
        if output.suffix == ".pt2":
            path = export_program(options.model, output, options.batch_size)
        else:
            path = export_onnx(options.model, output, options.batch_size, int8=options.int8)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB): pixel_values → prediction and interpretation_map")
