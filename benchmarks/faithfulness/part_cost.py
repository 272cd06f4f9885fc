"""
What the map costs: forward pass and training step against the plain timm network, in one run, on one thread.

Variants take turns, times are those of the process (whatever else the machine does), and every figure is a median of
ratios within a round. At 128 pixels networks take the time, not Python. The step is the Trainer's own, with the
recipe's coalitions.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn
from tqdm import tqdm

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training import AnteHocTrainer
from antehoc_hf.training.runs.settings import RunSettings, parse_settings

SIZE, CLASSES, STEP_BATCH = 128, 200, 16
# Options that the benchmark sets itself.
_OWN = ("image_size", "image_mean", "image_std", "backbone_kwargs")
AIMS = {"forward": 1.10, "step": 2.2}


def interleaved(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int, title: str) -> dict[str, Any]:
    """Median and quartiles of the ratio of process times; one round of warming up is not counted."""
    ratios = []
    for index in tqdm(range(rounds + 1), desc=title, leave=False):
        seconds = []
        for run in (plain, ours):
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        if index:
            ratios.append(seconds[1] / seconds[0])
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"value": middle, "low": low, "high": high, "count": len(ratios)}


def recipe_settings(options: argparse.Namespace, folder: str) -> RunSettings:
    """Of a training by the recipe, on the CPU."""
    flags = {"recipe": options.recipe, "dataset_name": "shapes", "output_dir": folder, "report_to": "none"}
    flags |= {"use_cpu": "true", "eval_strategy": "no"}
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    return parse_settings([*words, *shlex.split(options.training_flags)])


def our_model(backbone: str, settings: RunSettings) -> Any:
    """A classifier with the recipe's map."""
    config = {name: value for name, value in settings.config.items() if name not in _OWN}
    config["map_head"] = "contributions"
    return AnteHocForImageClassification.from_backbone(backbone, num_labels=CLASSES, image_size=SIZE, **config)


def forward(backbone: str, settings: RunSettings, batch: int, rounds: int) -> dict[str, Any]:
    """Prediction with the map, against the prediction by the same weights."""
    model, pixels = our_model(backbone, settings).eval(), torch.randn(batch, 3, SIZE, SIZE)

    def run(network: nn.Module) -> Callable[[], Any]:
        @torch.inference_mode()
        def once() -> Any:
            return network(pixels)

        return once

    return interleaved(run(model.backbone), run(model), rounds, f"Forward, {backbone}, batch {batch}")


def plain_step(backbone: str) -> Callable[[], Any]:
    """Forward, backward, clipping and AdamW of the plain network."""
    model = timm.create_model(backbone, num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixels, labels = torch.randn(STEP_BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (STEP_BATCH,))

    def step() -> None:
        nn.functional.cross_entropy(model(pixels), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(backbone: str, settings: RunSettings) -> Callable[[], Any]:
    """The same by the Trainer's `training_step`, both passes, with the recipe's share of the batch and coalitions."""
    model = our_model(backbone, settings).train()
    trainer = AnteHocTrainer(model=model, args=settings.training)
    optimizer = trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    pixels, labels = torch.randn(STEP_BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (STEP_BATCH,))

    def step() -> None:
        trainer.training_step(model, {"pixel_values": pixels, "labels": labels})
        nn.utils.clip_grad_norm_(model.backbone.parameters(), 1.0)
        nn.utils.clip_grad_norm_(model.map_head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Ratios, by what is run and backbone."""
    torch.manual_seed(0)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = recipe_settings(options, folder)
        for backbone in options.cost_backbones:
            ours, plain, title = our_step(backbone, settings), plain_step(backbone), f"Step, {backbone}"
            step = interleaved(plain, ours, max(options.rounds // 2, 3), title)
            late = 1 - settings.training.interpretation_start  # only then is there a second pass
            rows[backbone] = {
                "forward, batch 1": forward(backbone, settings, 1, 4 * options.rounds),
                "forward, batch 8": forward(backbone, settings, 8, options.rounds),
                f"step with a second pass, batch {STEP_BATCH}": step,
                "step in the mean": {k: 1 + late * (v - 1) if k != "count" else v for k, v in step.items()},
            }
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}, timm {timm.__version__}, {SIZE} px"
    return {"scores": rows, "machine": machine, "aims": AIMS}
