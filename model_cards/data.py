"""What a model card says, as plain frozen data."""

from dataclasses import dataclass
from typing import Any

ANTEHOC = "antehoc"
"""The method of models with a map head; the others are built for comparison."""

Pairs = tuple[tuple[str, Any], ...]
"""Names with values, in order."""


@dataclass(frozen=True)
class Facts:
    """What only a person can state.

    Args:
        license: an identifier such as `"apache-2.0"`, or a name. None: the card says nothing of it.
        author: who made the model.
        citation: BibTeX of a work about this model.
        benchmark_task: the task's name in the data set's own list of benchmarks on the Hub.
    """

    license: str | None = None
    author: str | None = None
    citation: str | None = None
    benchmark_task: str | None = None


@dataclass(frozen=True)
class DataSet:
    """What a model was trained on.

    Args:
        name: without the folders of a path.
        hub_id: its name on the Hub; None for other data.
        revision: the commit on the Hub.
        images: role of a split → number of images.
        notes: further sentences: what was left out or held out.
    """

    name: str
    hub_id: str | None = None
    revision: str | None = None
    images: Pairs = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreColumn:
    """A column of a table of maps: its metric, heading and decimals; `judges` says better or worse, or describes."""

    metric: str
    heading: str
    decimals: int = 2
    judges: bool = True
    bright: bool = False


@dataclass(frozen=True)
class ScoredMap:
    """The scores of one kind of map: metric → (value, low, high), of `kind` model, explainer or control."""

    name: str
    kind: str
    scores: tuple[tuple[str, tuple[float, float | None, float | None]], ...]


@dataclass(frozen=True)
class Maps:
    """How maps fared, next to maps that explain nothing; `about` says what was measured, `controls` what those are."""

    num_images: int
    rows: tuple[ScoredMap, ...]
    columns: tuple[ScoreColumn, ...]
    about: str = ""
    controls: str = ""
    seed: int | None = None
    level: float | None = None
    area: float | None = None
    partly: tuple[str, int] | None = None


@dataclass(frozen=True)
class CardData:
    """All that a card says. What was not measured or not stated is None or empty, and does not appear.

    Args:
        task: `"image-classification"`, `"landmark-detection"` or `"image-captioning"`.
        backbone: timm's name.
        base_model: on the Hub, where pretrained weights were taken from.
        problem_type: of classification, as in transformers.
        classes: the names of the classes.
        image_size: height and width in pixels.
        num_attention_maps, parameters, map_head_parameters: of the model.
        map_kind: of its map head, as in the configuration.
        map_grid: of a map of patches, how many there are along the image's shorter side.
        data: what it was trained on.
        evaluated_on, evaluated_images: the split and the number of images behind `metrics`.
        metrics: of the task.
        plain_metrics: the same of the plain backbone, trained alike.
        maps: how the maps fared.
        robustness: how they fared under noise, and next to those of a randomised network.
        training: length, time, hardware and so on.
        passes: for each of the two passes its hyper-parameters.
        preprocessing: the image processor's values.
        verdict: one sentence on whether the map may be trusted, from held-out images.
        objective: what the objective says of itself: `second_pass`, `learned`, `limits`.
        versions: of the packages.
        figures: pictures next to the card.
        facts: what a person stated.
        repo_id: name on the Hub.
        method: `model_type` of the configuration.
    """

    task: str
    backbone: str
    base_model: str | None = None
    problem_type: str | None = None
    classes: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    num_attention_maps: int | None = None
    parameters: int | None = None
    map_head_parameters: int | None = None
    map_kind: str = ""
    map_grid: int | None = None
    data: DataSet | None = None
    evaluated_on: str | None = None
    evaluated_images: int = 0
    metrics: Pairs = ()
    plain_metrics: Pairs = ()
    maps: Maps | None = None
    robustness: tuple[Maps, ...] = ()
    training: Pairs = ()
    passes: tuple[tuple[str, Pairs], ...] = ()
    objective: Pairs = ()
    verdict: str = ""
    preprocessing: Pairs = ()
    versions: Pairs = ()
    figures: tuple[str, ...] = ()
    facts: Facts = Facts()
    repo_id: str | None = None
    method: str = ANTEHOC
