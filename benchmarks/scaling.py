"""What two processes gain over one, in wall-clock time: a folder explained, and a training of the demo's network.

    python -m benchmarks.scaling --output outputs/scaling

Two processes on one machine share its caches and its memory, so that even those that know nothing of each other
run at less than twice the speed. They are measured as well, doing half of the work each: what two processes that
share a task take, divided by what these take, is what sharing costs. Start-up does not count: a folder is
explained twice, with more photographs and with fewer, and the difference taken; of a training counts what the
Trainer says.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from antehoc_hf import AnteHocImageProcessor
from benchmarks.cost import classifier, machine
from benchmarks.output import parser, show

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"}


def seconds(commands: Sequence[Sequence[str]]) -> float:
    """Wall-clock time of commands of Python side by side, until the last has ended.

    Raises:
        RuntimeError: if one fails.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        running = [
            subprocess.Popen([sys.executable, *command], env=os.environ | QUIET, stdout=said, stderr=said)
            for command in commands
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    return time.perf_counter() - begun


def explaining(place: Path, rounds: int, photos: int) -> list[dict[str, float]]:
    """ResNet-18 at 224 px, maps as Parquet: `photos` more in the long run than in the short one."""
    ours = classifier("resnet18", num_labels=1000, image_size=224)
    ours.save_pretrained(place / "model")
    AnteHocImageProcessor.from_backbone("resnet18", image_size=224).save_pretrained(place / "model")
    noise = np.random.default_rng(0)
    for name, count in (("few", 32), ("half", 32 + photos // 2), ("many", 32 + photos)):
        (place / name).mkdir()
        for index in range(count):
            coarse = noise.integers(0, 255, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((500, 375)).save(place / name / f"{index:05d}.jpg")
    made = iter(range(10_000))

    def command(folder: str) -> list[str]:
        options = ["--model", f"{place}/model", "--explainers", "antehoc", "--output_format", "parquet"]
        parts = ["--part_size", "16", "-o", f"{place}/out{next(made)}"]
        return ["-m", "antehoc_hf", "explain", f"{place}/{folder}", *options, *parts]

    found = []
    for _ in range(rounds):
        short, pair = seconds([command("few")]), seconds([command("few"), command("few")])
        shared = seconds([[*LAUNCHER, *command("few")]])
        found.append(
            {
                "one": seconds([command("many")]) - short,
                "two": seconds([[*LAUNCHER, *command("many")]]) - shared,
                "apart": seconds([command("half"), command("half")]) - pair,
            }
        )
    return found


def training(place: Path, rounds: int, steps: int) -> list[dict[str, float]]:
    """The demo's network and objective, 32 images a step: in one process, 16 in each of two, 16 in two trainings."""
    made = iter(range(10_000))
    few = {"image_size": 64, "train": 512, "validation": 16, "test": 16, "seed": 0}

    def runtime(processes: int, batch: int, launcher: Sequence[str] = ()) -> float:
        folders = [f"{place}/run{next(made)}" for _ in range(processes)]
        options = {
            "recipe": "demo",
            "dataset_options": json.dumps(few),
            "max_steps": str(steps),
            "per_device_train_batch_size": str(batch),
            "interpretation_start": "0",
            "eval_strategy": "no",
            "save_strategy": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        seconds([[*launcher, "-m", "antehoc_hf", "train", *words, "--output_dir", folder] for folder in folders])
        logs = [json.loads(Path(folder, "trainer_state.json").read_text())["log_history"] for folder in folders]
        return max(row["train_runtime"] for log in logs for row in log if "train_runtime" in row)

    return [{"one": runtime(1, 32), "two": runtime(1, 16, LAUNCHER), "apart": runtime(2, 16)} for _ in range(rounds)]


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """As Markdown, with every round."""
    lines = [
        "| work | one ÷ two processes | one ÷ two that share nothing | two ÷ two that share nothing |",
        "|---|---|---|---|",
    ]
    for name, rounds in found.items():
        pairs = (("one", "two"), ("one", "apart"), ("two", "apart"))
        cells = [" · ".join(f"{row[top] / row[bottom]:.2f}" for row in rounds) for top, bottom in pairs]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--photos", type=int, default=1024)
    command.add_argument("--steps", type=int, default=60)
    command.add_argument("--output", type=Path)
    options = command.parse_args()
    torch.manual_seed(0)
    found: dict[str, list[dict[str, float]]] = {}
    work = {
        f"{options.photos} photographs explained": lambda place: explaining(place, options.rounds, options.photos),
        f"{options.steps} training steps": lambda place: training(place, options.rounds, options.steps),
    }
    for name, measure in work.items():
        with tempfile.TemporaryDirectory() as place:
            found[name] = measure(Path(place))
        text = f"{machine()}, {os.cpu_count()} processors\n\n{table(found)}"
        show(text, options.output and options.output / "scaling.md")


if __name__ == "__main__":
    main()
