"""What several folders of tests share."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

WORDS = {"vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
COLOURS = {"blue": (30, 60, 220), "green": (40, 200, 70), "red": (220, 40, 40)}


# Explainers that draw or walk, with few steps.
QUICK: dict[str, dict[str, int]] = {
    "integrated-grad-cam": {"steps": 3},
    "integrated-gradients": {"steps": 3},
    "rise": {"masks": 30},
    "leave-one-out": {"grid": 4},
    "shapley-sampling": {"grid": 4, "samples": 1},
    "kernel-shap": {"grid": 4, "samples": 40},
    "coalition-regression": {"grid": 4, "pairs": 20},
}
# Explainers of transformers alone.
ATTENTION = ("attention-rollout", "gradient-attention")


class Explained(nn.Module):
    """Logits and map as plain tensors, as exported graphs want them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(pixel_values)
        return output.logits, output.interpretation_map


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """Weights, modes, gradients and hooks."""
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


def assert_as_it_was(model: nn.Module, before: tuple[Any, ...]) -> None:
    weights, modes, gradients, hooks = state_of(model)
    assert all(torch.equal(value, before[0][name]) for name, value in weights.items())
    assert (modes, hooks) == (before[1], before[3])
    assert [required for required, _ in gradients] == [required for required, _ in before[2]]
    assert all(now is then for (_, now), (_, then) in zip(gradients, before[2], strict=True))


def write_colours(root: Path) -> Path:
    """Fills a folder with class folders of plain colours with noise, 8 to train and 4 to test each: easy to learn."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def half_white(batch: int = 1, side: int = 4) -> torch.Tensor:
    """Images whose left half is white."""
    pixels = torch.zeros(batch, 3, side, side)
    pixels[..., : side // 2] = 1
    return pixels


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_in_two_processes(program: ModuleType, spec: Path) -> None:
    """Runs a module of the tests as a program in two processes; `accelerate launch --cpu` would start a single one."""
    arguments = ["--nproc_per_node", "2", "--master_port", str(free_port()), str(program.__file__), str(spec)]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *arguments],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
