"""The classifiers of this project: a plain network takes a map, one that explains itself has its own."""

from pathlib import Path
from typing import Any

from antehoc_hf.baselines import BASELINES, PlainForImageClassification
from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.modeling.timm_model import TimmPreTrainedModel
from antehoc_hf.sources.classifier import FinishedClassifier, Preprocessing

KINDS = {model.config_class.model_type: model for model in BASELINES.values()}


def of_our_folder(folder: Path, kind: str, origin: str) -> FinishedClassifier:
    """A saved model of one of the `KINDS`.

    Raises:
        ValueError: if it explains itself.
    """
    model = KINDS[kind]
    _refuse_if_it_explains(model, origin)
    return of_our_module(model.from_pretrained(folder), origin, _preprocessing_of(folder))


def of_our_module(
    model: TimmPreTrainedModel, origin: str, preprocessing: Preprocessing | None = None
) -> FinishedClassifier:
    """A model in memory.

    Raises:
        ValueError: if it explains itself.
    """
    _refuse_if_it_explains(type(model), origin)
    config: Any = model.config
    known = preprocessing or (_preprocessing_of(Path(config.name_or_path)) if config.name_or_path else None)
    sizes = {name: getattr(config, name) for name in ("image_size", "image_mean", "image_std")}
    names = [config.id2label[index] for index in range(config.num_labels)]
    return FinishedClassifier(
        backbone=config.backbone,
        backbone_kwargs=config.backbone_kwargs,
        weights={name: value.detach().cpu().clone() for name, value in model.backbone.state_dict().items()},
        num_labels=config.num_labels,
        names=names,
        preprocessing=(known or Preprocessing()).completed(**sizes),
        origin=origin,
        problem_type=config.problem_type,
        network=model,
    )


def _refuse_if_it_explains(model: type, origin: str) -> None:
    if not issubclass(model, PlainForImageClassification):
        raise ValueError(f"{origin} explains itself already: use it as it is.")


def _preprocessing_of(folder: Path) -> Preprocessing | None:
    """Of the image processor that was saved with a model."""
    if not (folder / "preprocessor_config.json").is_file():
        return None
    processor = AnteHocImageProcessor.from_pretrained(folder)
    return Preprocessing(**{name: getattr(processor, name) for name in vars(Preprocessing())})
