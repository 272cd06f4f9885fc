"""From what a run wrote (results.json, configurations) to the data of a card."""

import math
import re
from collections.abc import Mapping
from typing import Any

from antehoc_hf.model_cards.data import ANTEHOC, CardData, DataSet, Facts, Maps, Pairs, ScoreColumn, ScoredMap
from antehoc_hf.model_cards.escape import clean, slug

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TASKS = {"AnteHocForLandmarkDetection": "landmark-detection", "AnteHocForImageCaptioning": "image-captioning"}
_PREPROCESSING = ("image_size", "image_mean", "image_std", "interpolation", "crop_pct", "crop_mode")


def collect(
    config: Mapping[str, Any],
    results: Mapping[str, Any] | None = None,
    processor: Mapping[str, object] | None = None,
    facts: Facts | None = None,
    figures: tuple[str, ...] = (),
    repo_id: str | None = None,
) -> CardData:
    """All that a card says of a model.

    Args:
        config: of the model, as in config.json.
        results: of a run, as in results.json; None: nothing was measured.
        processor: of the images, as in preprocessor_config.json.
        facts: what a person stated.
        figures: names of pictures next to the card.
        repo_id: name on the Hub.
    """
    found = results or {}
    model, training = _mapping(found.get("model")), _mapping(found.get("training"))
    architecture = next(iter(config.get("architectures") or []), "")
    head = _mapping(config.get("map_head"))
    return CardData(
        task=_task(found.get("task"), architecture),
        backbone=str(config.get("backbone", "")),
        base_model=training.get("base_model"),
        problem_type=config.get("problem_type"),
        classes=_classes(config),
        image_size=_size(config.get("image_size")) or _size(model.get("image_size")),
        num_attention_maps=_whole(config.get("num_attention_maps")),
        parameters=_whole(model.get("parameters")),
        map_head_parameters=_whole(model.get("map_head_parameters")),
        map_kind=str(head.get("kind", "")),
        map_grid=_whole(head.get("grid")),
        data=_data(_mapping(found.get("data"))),
        evaluated_on=found.get("evaluated_on"),
        evaluated_images=_whole(found.get("evaluated_images")) or 0,
        metrics=_finite(found.get("metrics")),
        plain_metrics=_finite(_mapping(found.get("plain_backbone")).get("metrics")),
        maps=_maps(found.get("maps")),
        robustness=tuple(table for name in ("stability", "sanity") if (table := _maps(found.get(name)))),
        training=_chosen(training, ("epochs", "steps", "seconds", "hardware", "processes", "precision", "seed")),
        passes=tuple((name, _pairs(values)) for name, values in _mapping(training.get("passes")).items()),
        objective=_pairs(training.get("objective")),
        verdict=str(_mapping(found.get("verdict")).get("sentence") or ""),
        preprocessing=_chosen(processor or {}, _PREPROCESSING),
        versions=_pairs(found.get("versions")),
        figures=figures,
        facts=facts or Facts(),
        repo_id=repo_id,
        method=ANTEHOC if "map_head" in config else str(config.get("model_type", ANTEHOC)),
    )


def default_name(backbone: str, data: str | None) -> str:
    """`antehoc-<backbone>-<dataset>`, without the tag of pretrained weights and the folders of a path."""
    parts = ["antehoc", slug(backbone.split(".")[0]), slug(_last_part(data)) if data else ""]
    return "-".join(part for part in parts if part)[:90].rstrip("-")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pairs(values: object) -> Pairs:
    return tuple((str(name), _frozen(value)) for name, value in _mapping(values).items() if value is not None)


def _chosen(values: Mapping[str, object], names: tuple[str, ...]) -> Pairs:
    return tuple((name, _frozen(values[name])) for name in names if values.get(name) is not None)


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _finite(values: object) -> Pairs:
    numbers = {name: _number(value) for name, value in _mapping(values).items()}
    return tuple((name, value) for name, value in numbers.items() if value is not None)


def _number(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _size(value: object) -> tuple[int, int] | None:
    sides = [_whole(side) for side in value] if isinstance(value, list | tuple) else []
    return (sides[0], sides[1]) if len(sides) == 2 and sides[0] and sides[1] else None


def _task(stated: object, architecture: object) -> str:
    """What the results say; or else what the model's class does."""
    for task in ("image-classification", *_TASKS.values()):
        if task == stated:
            return task
    return _TASKS.get(str(architecture), "image-classification")


def _classes(config: Mapping[str, object]) -> tuple[str, ...]:
    names = _mapping(config.get("id2label"))
    if not all(str(key).isdecimal() for key in names):
        return ()
    listed = tuple(str(names[key]) for key in sorted(names, key=int))
    unnamed = tuple(f"LABEL_{index}" for index in range(len(listed)))  # what transformers fills in
    return () if listed == unnamed else listed


def _last_part(name: str) -> str:
    return re.split(r"[/\\]", name.rstrip("/\\"))[-1] or name


def _data(data: Mapping[str, object]) -> DataSet | None:
    """A name with folders in it is one on the Hub only if it has a revision there; else it is a path of ours."""
    if not data.get("name"):
        return None
    name, revision = str(data["name"]), data.get("revision")
    on_hub = revision is not None and _HUB_ID.fullmatch(name) is not None
    notes = []
    if data.get("validation_held_out_of_train"):
        notes.append("The validation images were held out of the training split.")
    if _whole(data.get("skipped_images")):
        notes.append(f"{data['skipped_images']} unreadable images were left out.")
    return DataSet(
        name=name if on_hub else clean(_last_part(name)),
        hub_id=name if on_hub else None,
        revision=clean(revision) if revision is not None else None,
        images=tuple((role, count) for role, count in _pairs(data.get("images")) if _whole(count) is not None),
        notes=tuple(notes),
    )


def _maps(value: object) -> Maps | None:
    report, rows = _mapping(value), []
    listed = report.get("rows")
    for row in map(_mapping, listed if isinstance(listed, list) else ()):
        scores = []
        for metric, score in _mapping(row.get("scores")).items():
            known = _score(score)
            if known is not None:
                scores.append((metric, known))
        rows.append(ScoredMap(str(row.get("name")), str(row.get("kind", "control")), tuple(scores)))
    columns = tuple(_column(name, _mapping(known)) for name, known in _mapping(report.get("columns")).items())
    if not rows or not columns:
        return None
    settings = _mapping(report.get("settings"))
    watched = _whole(settings.get("insertion_deletion_images")) or 0
    count = _whole(report.get("num_scored")) or _whole(report.get("num_images")) or 0
    return Maps(
        num_images=count,
        rows=tuple(rows),
        columns=columns,
        about=str(report.get("about") or ""),
        controls=str(report.get("controls") or ""),
        seed=_whole(settings.get("seed")),
        level=_number(settings.get("level")),
        area=_number(settings.get("area")),
        partly=("insertion and deletion", watched) if 0 < watched < count else None,
    )


def _score(score: object) -> tuple[float, float | None, float | None] | None:
    value, low, high = (_number(_mapping(score).get(key)) for key in ("value", "low", "high"))
    return None if value is None else (value, low, high)


def _column(metric: object, known: Mapping[str, object]) -> ScoreColumn:
    decimals = _whole(known.get("decimals"))
    return ScoreColumn(
        metric=str(metric),
        heading=str(known.get("heading", metric)),
        decimals=2 if decimals is None else min(max(decimals, 0), 6),
        judges=known.get("better") is not None,
        bright=bool(known.get("rewards_brightness")),
    )
