"""The metrics, by numbers computed by hand."""

import numpy as np
import pytest
from transformers import EvalPrediction

from antehoc_hf.training.metrics import metrics_of


def test_accuracy() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [5.0, 4.0]])
    found = metrics_of("single_label_classification")(EvalPrediction(logits, np.array([0, 1, 1, 0])))
    assert found == {"accuracy": 0.75}


def test_mean_average_precision_by_hand() -> None:
    # First class: ranks yes, no, yes → (1 + 2/3) / 2. Second: ranks no, yes, no → 1/2. The third never occurs.
    logits = np.array([[3.0, -1.0, -5.0], [2.0, 1.0, -5.0], [1.0, -2.0, -5.0]])
    labels = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = metrics_of("multi_label_classification")(EvalPrediction(logits, labels))
    assert found["mean_average_precision"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert found["exact_match"] == pytest.approx(1 / 3)  # the last image alone


def test_mean_average_precision_of_other_images_scores() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 4)) < 0.25).astype(float)
    metrics = metrics_of("multi_label_classification")
    knowing = metrics(EvalPrediction(labels - 0.5, labels))
    assert knowing["mean_average_precision"] == 1
    assert knowing["shuffled_average_precision"] == pytest.approx(0.3, abs=0.1)
    guessing = metrics(EvalPrediction(rng.random((200, 4)), labels))
    assert guessing["mean_average_precision"] == pytest.approx(guessing["shuffled_average_precision"], abs=0.05)


def test_equal_scores_share_a_rank() -> None:
    metrics = metrics_of("multi_label_classification")
    logits, labels = np.zeros((4, 1)), np.array([[1.0], [0.0], [0.0], [0.0]])
    first = metrics(EvalPrediction(logits, labels))["mean_average_precision"]
    last = metrics(EvalPrediction(logits, labels[::-1]))["mean_average_precision"]
    assert first == last == pytest.approx(0.25)


def test_errors_of_a_regression_on_one_number() -> None:
    # (N, 1) against (N,): broadcasting to (N, N) would be wrong without an error.
    found = metrics_of("regression")(EvalPrediction(np.array([[1.0], [3.0]]), np.array([2.0, 5.0])))
    assert found == {"mse": 2.5, "mse_of_mean": 2.25, "mae": 1.5}
