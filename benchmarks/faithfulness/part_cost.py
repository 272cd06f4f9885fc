"""What the map costs with the recipe's coalitions: forward pass and training step against the plain timm network.

At 128 pixels networks take the time, not Python. How it is measured: see `benchmarks.cost`.
"""

import argparse
import shlex
import tempfile
from typing import Any

import torch

from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from benchmarks.cost import STEP_BATCH, classifier, forward_variants, interleaved, machine, our_step, plain_step, ratio

# Options that the benchmark sets itself.
_OWN = ("image_size", "image_mean", "image_std", "backbone_kwargs")
AIMS = {"forward": 1.10, "step": 2.2}


def recipe_settings(options: argparse.Namespace, folder: str) -> RunSettings:
    """Of a training by the recipe, on the CPU."""
    flags = {"recipe": options.recipe, "dataset_name": "shapes", "output_dir": folder, "report_to": "none"}
    flags |= {"use_cpu": "true", "eval_strategy": "no"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    return parse_settings([*words, *shlex.split(options.training_flags)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios, by what is run and backbone."""
    torch.manual_seed(0)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = recipe_settings(options, folder)
        config = {name: value for name, value in settings.config.items() if name not in _OWN}
        config["map_head"] = "contributions"
        for backbone in options.cost_backbones:
            variants = {
                "plain": plain_step(backbone),
                "ours": our_step(classifier(backbone, **config), settings.training),
            }
            rounds = max(options.rounds // 2, 3)
            step = ratio(interleaved(variants, rounds, f"Step, {backbone}"), "ours")
            late = 1 - settings.training.interpretation_start  # only then is there a second pass
            rows[backbone] = {}
            for batch, times in ((1, 4), (8, 1)):
                variants = forward_variants(classifier(backbone, **config), batch)
                seconds = interleaved(variants, times * options.rounds, f"Forward, {backbone}, batch {batch}")
                rows[backbone][f"forward, batch {batch}"] = ratio(seconds, "ours")
            rows[backbone] |= {
                f"step with a second pass, batch {STEP_BATCH}": step,
                "step in the mean": {k: 1 + late * (v - 1) if k != "count" else v for k, v in step.items()},
            }
    return {"scores": rows, "machine": machine(), "aims": AIMS}
