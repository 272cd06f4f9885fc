"""What several folders of tests share."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from torch import Tensor, nn

COLOURS = {"blue": (30, 60, 220), "green": (40, 200, 70), "red": (220, 40, 40)}


class Explained(nn.Module):
    """Logits and map as plain tensors, as exported graphs want them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(pixel_values)
        return output.logits, output.interpretation_map


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
