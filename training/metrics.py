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
    ranked by its logit; `exact_match`: share of images whose whole set of classes is right at probability 0.5. All in
    [0, 1].
    """
    logits, labels = _arrays(prediction)
    truth = labels > 0.5
    values = [_average_precision(logits[:, k], truth[:, k]) for k in range(truth.shape[1]) if truth[:, k].any()]
    mean = float(np.mean(values)) if values else float("nan")
    return {"mean_average_precision": mean, "exact_match": float(((logits > 0) == truth).all(axis=1).mean())}


def errors(prediction: EvalPrediction) -> dict[str, float]:
    """`mse` and `mae`: mean squared and mean absolute error over images and numbers, in the labels' units."""
    predicted, labels = _arrays(prediction)
    difference = predicted.reshape(len(labels), -1) - labels.reshape(len(labels), -1)
    return {"mse": float(np.square(difference).mean()), "mae": float(np.abs(difference).mean())}


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
