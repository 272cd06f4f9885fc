"""
The measures as metrics of Hugging Face `evaluate`: fed batch by batch, each with its interval.

    metric = load_metric("pointing_game", tolerance=3)
    for maps, masks in batches:
        metric.add_batch(maps=maps, masks=masks)
    metric.compute()  # {"pointing_game": 0.71, "pointing_game_low": 0.66, …, "pointing_game_undefined": 2}

Metrics of arrays take the arrays. Those of curves and of models (insertion, ROAD, sensitivity, …) take `scores`, the
values of each image that the function of that name gave. `evaluate` itself is imported when a metric is loaded.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

_FAMILIES: dict[str, tuple[str, ...]] = {
    "faithfulness": ("drop_cond", "inc_cond", "win", "avg_drop", "inc_conf"),
    "localisation": ("energy_share", "energy_share_over_area", "pointing_game", "relevance_rank", "iou"),
    "complexity": ("map_mean", "map_entropy", "map_gini"),
    "stability": ("drop_change", "inc_change", "map_similarity"),
    "scores": (
        *("insertion", "deletion", "insertion_minus_deletion", "road", "max_sensitivity", "randomisation_similarity"),
        *("target_similarity", "importance_correlation", "preserved", "destroyed", "target_contrast"),
    ),
}

METRICS: tuple[str, ...] = tuple(name for names in _FAMILIES.values() for name in names)
"""What `load_metric` knows."""


def load_metric(name: str, **options: Any) -> Any:
    """
    A measure as a metric of `evaluate`, without network and without files.

    Args:
        name (`str`): one of `METRICS`.
        options: those of the function of that name (`tolerance`, `threshold`, …), and `seed`, `level` and `resamples`
            of the interval.

    Returns:
        `evaluate.Metric`: with `add_batch`, `add` and `compute`; also for `evaluate.combine`.

    Raises:
        ValueError: if there is no such metric or option.
    """
    family = import_module(f"{__name__}.{_family(name)}")
    return family.Metric(name, **options)


def metric_path(name: str) -> str:
    """
    The script in which `evaluate.load` finds a metric: `evaluate.load(metric_path(name), name)`.

    A script holds a family of measures, hence the name as the second argument, `evaluate`'s `config_name`.

    Raises:
        ValueError: if there is no such metric.
    """
    return str(Path(__file__).with_name(f"{_family(name)}.py"))


def _family(name: str) -> str:
    for family, names in _FAMILIES.items():
        if name in names:
            return family
    near = get_close_matches(str(name), METRICS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METRICS)}."
    raise ValueError(f"There is no metric {name!r}: {hint}")


__all__ = ["METRICS", "load_metric", "metric_path"]
