"""
What the map costs: forward and training step against the plain timm network, in one run, on one thread.

Variants take turns, times are those of the process, and every figure is a median of ratios within a round, so that
neither a machine whose speed drifts nor other work on it matters much. Peak memory is that of a process of its own for
each variant. Usage: `python -m benchmarks.cost`
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import timm
import torch
from torch import nn
from tqdm import tqdm

from antehoc_hf.modeling import AnteHocForImageClassification

SIZE = 128
CLASSES = 200
LIMITS = {
    "forward": 1.08,
    "step": 1.75,
    "step, a quarter of the batch": 1.25,
    "memory": 1.15,
}


def interleaved(variants: dict[str, Callable[[], Any]], rounds: int, title: str) -> dict[str, list[float]]:
    """Process time of every variant in every round, in turn; two rounds of warming up are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in tqdm(range(rounds + 2), desc=title, leave=False):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if index >= 2:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> dict[str, float]:
    """Median and quartiles of the ratio to `base` within each round."""
    ratios = sorted(a / b for a, b in zip(seconds[name], seconds[base], strict=True))
    quartiles = statistics.quantiles(ratios, n=4)
    return {"median": statistics.median(ratios), "low": quartiles[0], "high": quartiles[2], "rounds": len(ratios)}


def forward_variants(backbone: str, batch: int) -> dict[str, Callable[[], Any]]:
    """The plain network, ours, and Grad-CAM by captum and torchcam where they are installed."""
    ours = AnteHocForImageClassification.from_backbone(backbone, num_labels=CLASSES, image_size=SIZE).eval()
    plain = ours.backbone  # the same weights in the same memory: caches favour nobody
    pixels = torch.randn(batch, 3, SIZE, SIZE)

    def without_gradient(model: nn.Module) -> Callable[[], Any]:
        @torch.inference_mode()
        def run() -> Any:
            return model(pixels)

        return run

    variants = {"plain": without_gradient(plain), "ours": without_gradient(ours)}
    return variants | grad_cam_variants(plain, pixels)


def grad_cam_variants(plain: nn.Module, pixels: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Grad-CAM at the last stage for the predicted class, as the two libraries offer it."""
    variants: dict[str, Callable[[], Any]] = {}
    layer = plain.get_submodule("layer4")

    def at_input_size(maps: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(maps, size=pixels.shape[-2:], mode="bilinear")

    try:
        from captum.attr import LayerGradCam

        cam = LayerGradCam(plain, layer)

        def captum() -> Any:
            with torch.no_grad():
                target = plain(pixels).argmax(1)  # the prediction, which ours gives in the same pass
            return target, at_input_size(cam.attribute(pixels, target))

        def captum_known_target() -> Any:
            return at_input_size(cam.attribute(pixels, torch.zeros(len(pixels), dtype=torch.long)))

        variants |= {"captum Grad-CAM": captum_known_target, "captum Grad-CAM and prediction": captum}
    except ImportError:
        print("captum is not installed: pip install 'antehoc-hf[explainers]' to compare with it")
    try:
        from torchcam.methods import GradCAM

        extractor = GradCAM(plain, target_layer=layer, enable_hooks=False)

        def torchcam() -> Any:
            extractor.enable_hooks()
            scores = plain(pixels)
            maps = extractor(scores.argmax(1).tolist(), scores)
            extractor.disable_hooks()
            return scores, at_input_size(maps[0].unsqueeze(1))

        variants["torchcam Grad-CAM"] = torchcam
    except ImportError:
        print("torchcam is not installed: pip install 'antehoc-hf[explainers]' to compare with it")
    return variants


def plain_step(backbone: str, batch: int) -> Callable[[], Any]:
    """One training step of the plain network: forward, backward, AdamW."""
    model = timm.create_model(backbone, num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixels, labels = torch.randn(batch, 3, SIZE, SIZE), torch.randint(CLASSES, (batch,))

    def step() -> None:
        nn.functional.cross_entropy(model(pixels), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def two_pass_step(backbone: str, batch: int, share: float) -> Callable[[], Any]:
    """One training step of ours, by the Trainer's own `training_step`."""
    from antehoc_hf.training import AnteHocTrainer, AnteHocTrainingArguments

    model = AnteHocForImageClassification.from_backbone(backbone, num_labels=CLASSES, image_size=SIZE).train()
    arguments = AnteHocTrainingArguments(
        output_dir="outputs/cost", use_cpu=True, report_to="none", interpretation_batch_share=share, disable_tqdm=True
    )
    trainer = AnteHocTrainer(model=model, args=arguments)
    optimizer = trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    pixels, labels = torch.randn(batch, 3, SIZE, SIZE), torch.randint(CLASSES, (batch,))

    def step() -> None:
        trainer.training_step(model, {"pixel_values": pixels, "labels": labels})
        nn.utils.clip_grad_norm_(model.backbone.parameters(), 1.0)
        nn.utils.clip_grad_norm_(model.map_head.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak_memory(backbone: str, batch: int, which: str) -> float:
    """Mebibytes that three steps add to a process, measured in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.cost",
        "--memory-of",
        which,
        "--backbone",
        backbone,
        "--batch",
        str(batch),
    ]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_of(backbone: str, batch: int, which: str) -> None:
    """Prints what three steps add to this process's peak, in mebibytes; the first lacks the optimizer's state."""
    step = plain_step(backbone, batch) if which == "plain" else two_pass_step(backbone, batch, 1.0)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the imports
    before = _kibibytes("VmHWM")
    for _ in range(3):
        step()
    print((_kibibytes("VmHWM") - before) / 1024)


def _kibibytes(name: str) -> int:
    """A line of this process's memory figures."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def run(rounds: int) -> list[dict[str, Any]]:
    """All figures, as rows of a table."""
    rows: list[dict[str, Any]] = []
    for batch in (1, 8):
        seconds = interleaved(
            forward_variants("resnet50", batch), rounds * (4 if batch == 1 else 1), f"forward, {batch}"
        )
        for name in list(seconds)[1:]:
            limit = LIMITS["forward"] if name == "ours" else None
            what = f"forward with map ÷ plain ({name}), batch {batch}"
            rows.append({"what": what, "backbone": "resnet50", **ratio(seconds, name, "plain"), "limit": limit})
    for backbone in ("resnet18", "resnet50"):
        variants = {
            "plain": plain_step(backbone, 16),
            "step": two_pass_step(backbone, 16, 1.0),
            "step, a quarter of the batch": two_pass_step(backbone, 16, 0.25),
        }
        seconds = interleaved(variants, max(rounds // 2, 4), f"step, {backbone}")
        for name in list(seconds)[1:]:
            row = {"what": f"two-pass {name} ÷ plain step, batch 16", "backbone": backbone, "limit": LIMITS[name]}
            rows.append({**row, **ratio(seconds, name, "plain")})
        memory = {which: peak_memory(backbone, 16, which) for which in ("plain", "ours")}
        median = {"median": memory["ours"] / memory["plain"], "limit": LIMITS["memory"]}
        rows.append({"what": "peak memory of the step ÷ plain, batch 16", "backbone": backbone, **median, **memory})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = ["| what | backbone | ratio | quartiles | aim |", "|---|---|---:|---|---:|"]
    for row in rows:
        spread = f"{row['low']:.3f}–{row['high']:.3f} ({row['rounds']})" if "low" in row else "–"
        aim = f"≤ {row['limit']}" if row["limit"] else "–"
        lines.append(f"| {row['what']} | {row['backbone']} | {row['median']:.3f} | {spread} | {aim} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("outputs/cost"))
    parser.add_argument("--memory-of", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--backbone", default="resnet18", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=16, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.memory_of:
        return memory_of(options.backbone, options.batch, options.memory_of)
    rows = run(options.rounds)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}, timm {timm.__version__}, {SIZE} px"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "cost.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))
    (options.output / "cost.md").write_text(f"{machine}\n\n{table(rows)}\n")
    print(f"{machine}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
