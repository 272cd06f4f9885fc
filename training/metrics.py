"""What an evaluation computes from predictions and labels, with numpy alone."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

Metrics = Callable[[EvalPrediction], dict[str, float]]


def metrics_of(problem_type: str) -> Metrics:
    """The metrics of a kind of problem (`problem_type` in transformers), for the Trainer's `compute_metrics`."""
    return {
        "single_label_classification": accuracy,
        "multi_label_classification": mean_average_precision,
        "regression": errors,
    }[problem_type]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """`accuracy`: share in [0, 1] of the (N, K) logits whose largest is that of the label; labels (N,)."""
    logits, labels = _arrays(prediction)
    return {"accuracy": float((logits.argmax(axis=1) == labels).mean())}


def mean_average_precision(prediction: EvalPrediction) -> dict[str, float]:
    """`mean_average_precision`: the mean over the classes that occur of the precision at each image of the class,
    ranked by its logit; `shuffled_average_precision`: the same with the scores of other images; `exact_match`: share
    of images whose whole set of classes is right at probability 0.5. All in [0, 1].
    """
    logits, labels = _arrays(prediction)
    truth = labels > 0.5
    steps = sorted({max(1, len(logits) * step // 6) for step in range(1, 6)})
    shuffled = np.mean([_mean_precision(np.roll(logits, step, axis=0), truth) for step in steps])
    return {
        "mean_average_precision": _mean_precision(logits, truth),
        "shuffled_average_precision": float(shuffled),
        "exact_match": float(((logits > 0) == truth).all(axis=1).mean()),
    }


def errors(prediction: EvalPrediction) -> dict[str, float]:
    """`mse` and `mae`: mean squared and mean absolute error over images and numbers, in the labels' units;
    `mse_of_mean`: that of one answer for all images, the mean of the labels.
    """
    predicted, labels = _arrays(prediction)
    numbers = labels.reshape(len(labels), -1)
    difference = predicted.reshape(len(labels), -1) - numbers
    return {
        "mse": float(np.square(difference).mean()),
        "mse_of_mean": float(numbers.var(axis=0).mean()),
        "mae": float(np.abs(difference).mean()),
    }


def _mean_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Over the classes that occur; NaN if none does."""
    values = [_average_precision(scores[:, k], truth[:, k]) for k in range(truth.shape[1]) if truth[:, k].any()]
    return float(np.mean(values)) if values else float("nan")


def _average_precision(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Images of one score share a rank: the order in which they happen to come must not matter."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    # Of each group of equal scores, the last position.
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision, recalled = hits[ends] / (ends + 1), np.diff(hits[ends], prepend=0)
    return float((precision * recalled).sum() / hits[-1])


def _arrays(prediction: EvalPrediction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return np.asarray(logits, dtype=np.float64), np.asarray(prediction.label_ids)
