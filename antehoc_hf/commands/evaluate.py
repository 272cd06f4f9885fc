"""`antehoc evaluate`: a trained model's accuracy and maps on a data set, as table, JSON and picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from antehoc_hf.commands.errors import UsageError, check_explainers, check_least, check_model
from antehoc_hf.commands.options import OptionParser, option
from antehoc_hf.commands.output import overwrite_option
from antehoc_hf.explainers import EXPLAINERS
from antehoc_hf.training.runs.options import TASK_ARGUMENTS, DataArguments


@dataclass
class EvaluateArguments:
    """What is evaluated, and how."""

    group: ClassVar[str] = "evaluation"
    everyday: ClassVar[bool] = True

    model: str = option(help="Folder or Hub name of a trained model.", positional="MODEL")
    output_dir: str = option("evaluation", "Folder for results.json and predictions.png.", short="-o")
    overwrite: bool = overwrite_option()
    batch_size: int = option(32, "Images at a time.")
    workers: int = option(0, "Processes that load data.")
    map_eval_samples: int = option(1000, "Images on which the maps are measured.")
    insertion_deletion_images: int = option(0, "Of these, how many for insertion and deletion, which are slow.")
    mask_column: str | None = option(None, "Column with masks of the true evidence, to measure localisation.")
    explainers: list[str] = option([], f"Methods measured next to the model's map, of {', '.join(EXPLAINERS)}.")
    target: Literal["label", "prediction"] = option(
        "label", "The class that is watched: the label, or what the model predicts."
    )
    thorough: bool = option(
        False, "Every form of the measures: more areas, patches, blur and ROAD. Takes several times as long."
    )
    noise_shares: list[float] = option(
        [], "Measure stability with these shares of the pixels turned black or white, such as 0.1 0.3."
    )
    sanity_images: int = option(0, "Compare the maps of this many images with those of a randomised network.")
    update_card: bool = option(False, "Put the results on the card in the model's folder, in place of earlier ones.")

    def __post_init__(self) -> None:
        check_model(self.model)
        check_explainers(self.explainers)
        least = {"batch_size": 1, "workers": 0, "map_eval_samples": 1, "insertion_deletion_images": 0}
        check_least(self, least)
        if self.sanity_images < 0 or not all(0 < share <= 1 for share in self.noise_shares):
            raise UsageError("noise_shares are parts of the pixels, above 0 and up to 1; sanity_images is 0 or more.")


@dataclass(frozen=True)
class EvaluateOptions:
    """All options of the command; `values` are those that were given, by name."""

    evaluation: EvaluateArguments
    data: DataArguments
    values: Mapping[str, Any]
    parser: OptionParser


def parse(argv: Sequence[str]) -> EvaluateOptions:
    """The options.

    Raises:
        UsageError: if there is no model or no data set; see [`OptionParser`] for other errors.
    """
    parser = OptionParser(EvaluateArguments, DataArguments, *TASK_ARGUMENTS, prog="antehoc evaluate")
    values = parser.read(argv)
    options, data = parser.build(EvaluateArguments, values), parser.build(DataArguments, values)
    if data.dataset_name is None:
        raise UsageError("There is no data set: pass --dataset_name NAME (on the Hub, a folder, or 'shapes').")
    return EvaluateOptions(options, data, values, parser)


def run(options: EvaluateOptions) -> None:
    """Evaluates; see `antehoc_hf.commands.evaluate_model`."""
    from antehoc_hf.commands.evaluate_model import evaluate_model

    evaluate_model(options)
