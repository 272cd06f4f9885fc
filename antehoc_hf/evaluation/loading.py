"""Metrics as those of Hugging Face `evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from antehoc_hf.evaluation.metric import metric_named

if TYPE_CHECKING:
    from antehoc_hf.evaluation.evaluate_metric import MapMetric


def load_metric(name: str, **options: Any) -> MapMetric:
    """A metric of Hugging Face `evaluate`, fed batch by batch, without network or files.

        metric = load_metric("pointing_game", tolerance=3)
        for maps, masks in batches:
            metric.add_batch(maps=maps, masks=masks)
        metric.compute()  # {"pointing_game": 0.71, "pointing_game_low": 0.66, …, "pointing_game_undefined": 2}

    Args:
        name (`str`): one of `METRICS`.
        options: those of the metric's function (`tolerance`, `threshold`, …), and `seed`, `level` and `resamples` of
            the interval.

    Returns:
        `evaluate.Metric`: with `add_batch`, `add` and `compute`; also for `evaluate.combine`. It takes arrays (`maps`,
            `masks`, `p_image`, …), or `scores`, the values of each image, where the metric needs a model.

    Raises:
        ValueError: if there is no such metric or option.
    """
    metric_named(name)
    from antehoc_hf.evaluation.evaluate_metric import MapMetric

    return MapMetric(name, **options)
