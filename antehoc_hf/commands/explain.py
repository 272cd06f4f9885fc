"""`antehoc explain`: what several methods say a model looked at, as figures, arrays and JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from antehoc_hf.commands.errors import UsageError, check_data, check_explainers, check_images, check_least, check_model
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import overwrite_option
from antehoc_hf.explainers import EXPLAINERS


@dataclass
class ExplainArguments:
    """What is explained, and how."""

    group: ClassVar[str] = "explanation"

    model: str | None = option(
        None,
        "Folder or Hub name of a model: one of ours, or any image classifier. By default a small one of drawn bugs.",
    )
    images: list[str] = option(
        [], "Image files, and folders of them. Without a model two drawn bugs.", positional="IMAGE…"
    )
    explainers: list[str] = option(["antehoc", "grad-cam"], f"Methods of {', '.join(EXPLAINERS)}.")
    target: str | None = option(
        None, "Class (index or name), landmark or group. By default the model's own prediction of each image."
    )
    layer: str | None = option(None, "Module that methods of one layer read. By default the last block.")
    output_dir: str = option("explanations", "Folder for figures, maps and JSON.", short="-o")
    overwrite: bool = overwrite_option()
    batch_size: int = option(8, "Images at a time.")
    figures: bool = option(True, "Draw one figure for each image.")
    output_format: Literal["files", "parquet"] = option(
        "files", "'parquet': a table in parts, for many images: without figures, by several processes, resumed."
    )
    dataset_name: str | None = option(
        None, "Instead of files the images of a data set: a name on the Hub, a folder, or 'shapes'; as parquet."
    )
    split: str = option("test", "Which split of the data set.")
    part_size: int = option(512, "Images in a part of the table.")
    workers: int = option(0, "Processes that load images for a table.")
    on_bad_image: Literal["stop", "skip"] = option("stop", "'skip': name images that cannot be read and go on.")

    def __post_init__(self) -> None:
        check_explainers(self.explainers)
        check_least(self, {"batch_size": 1})
        if not self.explainers:
            raise UsageError("There is no explainer: name some with --explainers, such as antehoc and grad-cam.")
        if self.part_size < 1 or self.workers < 0:
            raise UsageError("part_size must be at least 1, and workers at least 0.")
        if self.dataset_name is not None and self.output_format != "parquet":
            raise UsageError("The images of a data set are explained as a table: add --output_format parquet.")
        if self.dataset_name is not None and self.images:
            raise UsageError("Name files or a data set (--dataset_name), not both.")
        check_data(self.dataset_name)
        if self.model:
            check_model(self.model)
        if self.images or (self.model and not self.dataset_name):
            check_images(self.images)


def parse(argv: Sequence[str]) -> ExplainArguments:
    """The options; see [`OptionParser`] for the errors."""
    return OptionParser(ExplainArguments, prog="antehoc explain").parse(argv, ExplainArguments)[0]


def run(options: ExplainArguments) -> None:
    """Explains; see `antehoc_hf.commands.explain_images` and `explain_table`."""
    if options.output_format == "parquet":
        from antehoc_hf.commands.explain_table import explain_table

        explain_table(options)
        return
    from antehoc_hf.commands.explain_images import explain_images

    explain_images(options)
