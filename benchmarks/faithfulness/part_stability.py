"""How little the maps change under salt and pepper."""

import argparse
from typing import Any

from antehoc_hf.evaluation import evaluate_stability
from benchmarks.faithfulness.cells import OURS, REFERENCE
from benchmarks.faithfulness.subjects import BATCH, Subject

SHARES = (0.1, 0.2, 0.3)


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """CD, CI and rank correlation of the maps at each share of noisy pixels.

    The class is the one predicted on the clean image, for every row but `antehoc`: that is the map which the model
    shows by itself, of what it predicts on the noisy image.
    """
    batches = [
        {"pixel_values": images, "labels": target}
        for images, target in zip(subject.pixel_values.split(BATCH), subject.predicted.split(BATCH), strict=True)
    ]
    config = subject.model.config
    report = evaluate_stability(
        subject.model,
        batches,
        image_mean=config.image_mean,
        image_std=config.image_std,
        shares=SHARES,
        explainers={f"{OURS}, same class": subject.explainer(OURS), REFERENCE: subject.explainer(REFERENCE)},
    )
    return {"scores": {row["name"]: row["scores"] for row in report.to_dict()["rows"]}}
