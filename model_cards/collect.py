"""From what a run wrote (results.json, configurations) to the data of a card."""

import math
import re
from collections.abc import Mapping
from typing import Any

from antehoc_hf.model_cards.data import ANTEHOC, CardData, DataSet, Facts, MapRow, Maps, Pairs
from antehoc_hf.model_cards.escape import clean, slug

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TASKS = {
    "AnteHocForLandmarkDetection": "landmark-detection",
    "AnteHocForImageCaptioning": "image-captioning",
}
_PREPROCESSING = ("image_size", "image_mean", "image_std", "interpolation", "crop_pct", "crop_mode")


def collect(
    config: Mapping[str, Any],
    results: Mapping[str, Any] | None = None,
    processor: Mapping[str, Any] | None = None,
    facts: Facts | None = None,
    figures: tuple[str, ...] = (),
    repo_id: str | None = None,
) -> CardData:
    """
    Args:
        config: of the model, as in config.json.
        results: of a run, as in results.json; None: nothing was measured.
        processor: of the images, as in preprocessor_config.json.
        facts: what a person told.
        figures: names of pictures beside the card.
        repo_id: name on the Hub.
    """
    found = results or {}
    model, training = _mapping(found.get("model")), _mapping(found.get("training"))
    architecture = next(iter(config.get("architectures") or []), "")
    size = config.get("image_size") or model.get("image_size")
    of_each_class = config.get("weight_network") == "contributions"
    return CardData(
        task=found.get("task") or _TASKS.get(architecture, "image-classification"),
        backbone=str(config.get("backbone", "")),
        base_model=training.get("base_model"),
        problem_type=config.get("problem_type"),
        classes=_classes(config),
        image_size=(int(size[0]), int(size[1])) if size else None,
        num_attention_maps=config.get("num_attention_maps"),
        parameters=model.get("parameters"),
        weight_network_parameters=model.get("weight_network_parameters"),
        class_conditional=of_each_class,
        contribution_grid=_whole(config.get("contribution_grid")) if of_each_class else None,
        data=_data(_mapping(found.get("data"))),
        evaluated_on=found.get("evaluated_on"),
        evaluated_images=found.get("evaluated_images") or 0,
        metrics=_finite(found.get("metrics")),
        plain_metrics=_finite(_mapping(found.get("plain_backbone")).get("metrics")),
        maps=_maps(found.get("maps")),
        training=_told(training, ("epochs", "steps", "seconds", "hardware", "processes", "precision", "seed")),
        passes=tuple((name, _pairs(values)) for name, values in _mapping(training.get("passes")).items()),
        preprocessing=_told(processor or {}, _PREPROCESSING),
        versions=_pairs(found.get("versions")),
        figures=figures,
        facts=facts or Facts(),
        repo_id=repo_id,
        method=str(config.get("model_type", ANTEHOC)),
    )


def default_name(backbone: str, data: str | None) -> str:
    """`antehoc-<backbone>-<dataset>`, without the tag of pretrained weights and the folders of a path."""
    parts = ["antehoc", slug(backbone.split(".")[0]), slug(_last_part(data)) if data else ""]
    return "-".join(part for part in parts if part)[:90].rstrip("-")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pairs(values: Any) -> Pairs:
    return tuple((str(name), _frozen(value)) for name, value in _mapping(values).items() if value is not None)


def _told(values: Mapping[str, Any], names: tuple[str, ...]) -> Pairs:
    return tuple((name, _frozen(values[name])) for name in names if values.get(name) is not None)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _finite(values: Any) -> Pairs:
    return tuple((name, float(value)) for name, value in _mapping(values).items() if _is_number(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = _mapping(config.get("id2label"))
    listed = tuple(str(names[key]) for key in sorted(names, key=int))
    unnamed = tuple(f"LABEL_{index}" for index in range(len(listed)))  # what transformers fills in
    return () if listed == unnamed else listed


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name


def _data(data: Mapping[str, Any]) -> DataSet | None:
    """A name with folders in it is one on the Hub only if it has a revision there; else it is a path of ours."""
    if not data.get("name"):
        return None
    name, revision = str(data["name"]), data.get("revision")
    on_hub = revision is not None and _HUB_ID.fullmatch(name) is not None
    notes = []
    if data.get("validation_held_out_of_train"):
        notes.append("The validation images were held out of the training split.")
    if data.get("skipped_images"):
        notes.append(f"{int(data['skipped_images'])} unreadable images were left out.")
    return DataSet(
        name=name if on_hub else clean(_last_part(name)),
        hub_id=name if on_hub else None,
        revision=clean(revision) if revision is not None else None,
        images=_pairs(data.get("images")),
        notes=tuple(notes),
    )


def _maps(report: Any) -> Maps | None:
    rows = []
    for row in _mapping(report).get("rows", ()):
        scores = []
        for metric, score in _mapping(row.get("scores")).items():
            value, low, high = (_mapping(score).get(key) for key in ("value", "low", "high"))
            if _is_number(value):
                scores.append((metric, (float(value), low, high)))  # type: ignore[arg-type]
        rows.append(MapRow(str(row.get("name")), str(row.get("kind", "control")), tuple(scores)))
    if not rows:
        return None
    settings = _mapping(report.get("settings"))
    watched = settings.get("insertion_deletion_images") or 0
    count = report.get("num_scored") or report.get("num_images") or 0
    return Maps(
        num_images=count,
        rows=tuple(rows),
        seed=settings.get("seed"),
        level=settings.get("level"),
        area=settings.get("area"),
        partly=("insertion and deletion", watched) if 0 < watched < count else None,
    )
