"""`antehoc regions`: the dominant regions of a folder of images, and a gallery of the strongest for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from antehoc_hf.commands.errors import UsageError, check_explainers, check_images, check_least, check_model, need
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import overwrite_option
from antehoc_hf.explainers import EXPLAINERS


@dataclass
class RegionArguments:
    """Which regions are looked for."""

    group: ClassVar[str] = "regions"

    model: str = option(help="Folder or Hub name of a classifier: one of ours, or any other.")
    images: list[str] = option([], "Image files, and folders of them.", positional="IMAGE…")
    explainer: str = option("antehoc", f"One method of {', '.join(EXPLAINERS)}.")
    threshold: float = option(0.8, "Of the map, stretched to [0, 1]; the paper's is 0.8.")
    least_area: float = option(0.002, "Smaller parts are left out; a share of the image.")
    per_class: int = option(24, "Regions in a class's gallery.")
    output_dir: str = option("regions", "Folder for galleries and JSON.", short="-o")
    overwrite: bool = overwrite_option()
    batch_size: int = option(16, "Images at a time.")
    on_bad_image: Literal["stop", "skip"] = option("stop", "'skip': name images that cannot be read and go on.")

    def __post_init__(self) -> None:
        need("scipy", "concepts", "Cutting out regions")
        check_explainers([self.explainer])
        check_least(self, {"batch_size": 1, "per_class": 1, "least_area": 0})
        if not 0 < self.threshold <= 1 or self.least_area > 1:
            raise UsageError("threshold must lie in (0, 1] and least_area, a share of the image, in [0, 1].")
        check_images(self.images)
        check_model(self.model)


def parse(argv: Sequence[str]) -> RegionArguments:
    """The options; see [`OptionParser`] for the errors."""
    return OptionParser(RegionArguments, prog="antehoc regions").parse(argv, RegionArguments)[0]


def run(options: RegionArguments) -> None:
    """Cuts out regions; see `antehoc_hf.commands.region_galleries`."""
    from antehoc_hf.commands.region_galleries import region_galleries

    region_galleries(options)
