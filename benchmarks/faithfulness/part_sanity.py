"""Does the map of a class change when the network forgets, and when another class is asked about?"""

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.sanity import cascade, randomisation_steps, randomised
from antehoc_hf.evaluation.stability import map_similarity
from antehoc_hf.explainers import load_explainer
from benchmarks.faithfulness.cells import OURS, REFERENCE, defined_mean
from benchmarks.faithfulness.subjects import Subject, maps_of, predict

METHODS = (OURS, REFERENCE, "sobel")


def networks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The network without what its head has learned; without head and last stage; without the last stage alone."""
    names = [name for name, _ in randomisation_steps(model)[:2]]
    for (name, network), so_far in zip(itertools.islice(cascade(model), 2), (names[:1], names), strict=False):
        del name
        yield " and ".join(so_far), network
    yield f"{names[1]} alone", randomised(model, randomisation_steps(model)[1][1])


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Rank correlations with the trained network's map of its prediction, in [−1, 1].

    `same class` asks the randomised network about that same class, `own prediction` about its own. `second class` is
    the map of the second likeliest class; `another image` that of the predicted class of the next image, which tells
    how much all maps of a method have in common anyway.
    """
    images, target = subject.pixel_values, subject.predicted
    second = subject.probabilities.scatter(1, target[:, None], -1.0).argmax(dim=1)
    trained = {name: maps_of(subject.explainer(name), images, target, f"Sanity, {name}") for name in METHODS}
    found: dict[str, dict[str, Any]] = {name: {} for name in METHODS}
    for step, network in networks(subject.model):
        own = predict(network, images).argmax(dim=1)
        for name in METHODS:
            explain = load_explainer(name, network)
            for word, asked in (("same class", target), ("own prediction", own)):
                maps = maps_of(explain, images, asked, f"Sanity, {name}, {step}")
                found[name][f"{step}: {word}"] = _similarity(trained[name], maps)
    for name in METHODS:
        others = maps_of(subject.explainer(name), images, second, f"Sanity, {name}, second class")
        found[name]["second class"] = _similarity(trained[name], others)
        found[name]["another image"] = _similarity(trained[name], trained[name].roll(1, dims=0))
    return {"scores": found}


def _similarity(maps: Tensor, others: Tensor) -> dict[str, Any]:
    values = torch.cat([map_similarity(*pair) for pair in zip(maps.split(100), others.split(100), strict=True)])
    return defined_mean(values)
