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
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training import AnteHocTrainer, AnteHocTrainingArguments

SIZE, CLASSES, STEP_BATCH = 128, 200, 16
QUARTER = "step, a quarter of the batch"
LIMITS = {"forward": 1.08, "step": 1.75, QUARTER: 1.25, "memory": 1.15}
Run = Callable[[], object]


def machine() -> str:
    """What the figures were measured on."""
    return f"{platform.machine()}, 1 thread, torch {torch.__version__}, timm {timm.__version__}, {SIZE} px"


def interleaved(variants: Mapping[str, Run], rounds: int, title: str) -> dict[str, list[float]]:
    """Process time of every variant in every round, in turn; two rounds of warming up are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for index in tqdm(range(rounds + 2), desc=title, leave=False):
        for name, run in variants.items():
            start = time.process_time()
            run()
            if index >= 2:
                seconds[name].append(time.process_time() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str = "plain") -> dict[str, float]:
    """Median and quartiles of the ratio to `base` within each round."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"value": middle, "low": low, "high": high, "count": len(ratios)}


def classifier(backbone: str, **options: object) -> AnteHocForImageClassification:
    """Ours, untrained."""
    return AnteHocForImageClassification.from_backbone(backbone, num_labels=CLASSES, image_size=SIZE, **options)


def forward_variants(ours: AnteHocForImageClassification, batch: int) -> dict[str, Run]:
    """The network alone and with its map: the same weights in the same memory, so that caches favour nobody."""
    ours, pixels = ours.eval(), torch.randn(batch, 3, SIZE, SIZE)

    def without_gradient(network: nn.Module) -> Run:
        return torch.inference_mode()(lambda: network(pixels))

    return {"plain": without_gradient(ours.backbone), "ours": without_gradient(ours)}


def grad_cam_variants(plain: nn.Module, batch: int) -> dict[str, Run]:
    """Grad-CAM at the last stage for the predicted class, as captum and torchcam offer it, where installed."""
    variants: dict[str, Run] = {}
    layer, pixels = plain.get_submodule("layer4"), torch.randn(batch, 3, SIZE, SIZE)

    def at_input_size(maps: Tensor) -> Tensor:
        return nn.functional.interpolate(maps, size=pixels.shape[-2:], mode="bilinear")

    try:
        from captum.attr import LayerGradCam

        cam = LayerGradCam(plain, layer)

        def captum() -> object:
            with torch.no_grad():
                target = plain(pixels).argmax(1)  # the prediction, which ours gives in the same pass
            return target, at_input_size(cam.attribute(pixels, target))

        def captum_known_target() -> object:
            return at_input_size(cam.attribute(pixels, torch.zeros(len(pixels), dtype=torch.long)))

        variants |= {"captum Grad-CAM": captum_known_target, "captum Grad-CAM and prediction": captum}
    except ImportError:
        print("captum is not installed: pip install 'antehoc-hf[explainers]' to compare with it")
    try:
        from torchcam.methods import GradCAM

        extractor = GradCAM(plain, target_layer=layer, enable_hooks=False)

        def torchcam() -> object:
            extractor.enable_hooks()
            scores = plain(pixels)
            maps = extractor(scores.argmax(1).tolist(), scores)
            extractor.disable_hooks()
            return scores, at_input_size(maps[0].unsqueeze(1))

        variants["torchcam Grad-CAM"] = torchcam
    except ImportError:
        print("torchcam is not installed: pip install torchcam to compare with it")
    return variants


def plain_step(backbone: str) -> Run:
    """One training step of the plain network: forward, backward, clipping, AdamW."""
    model = timm.create_model(backbone, num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixels, labels = torch.randn(STEP_BATCH, 3, SIZE, SIZE), torch.randint(CLASSES, (STEP_BATCH,))

    def step() -> None:
        nn.functional.cross_entropy(model(pixels), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(model: AnteHocForImageClassification, arguments: AnteHocTrainingArguments) -> Run:
    """The same of ours, both passes, by the Trainer's own `training_step`."""
    trainer = AnteHocTrainer(model=model.train(), args=arguments)
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


def arguments(share: float) -> AnteHocTrainingArguments:
    """Of a training whose second pass takes this share of the batch."""
    return AnteHocTrainingArguments(
        output_dir="outputs/cost", use_cpu=True, report_to="none", interpretation_batch_share=share, disable_tqdm=True
    )


def peak_memory(backbone: str, which: str) -> float:
    """Mebibytes that three steps add to a process, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cost", "--memory-of", which, "--backbone", backbone]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def memory_of(backbone: str, which: str) -> None:
    """Prints what three steps add to this process's peak, in mebibytes; the first lacks the optimizer's state."""
    step = plain_step(backbone) if which == "plain" else our_step(classifier(backbone), arguments(1.0))
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the imports
    before = _peak_kibibytes()
    for _ in range(3):
        step()
    print((_peak_kibibytes() - before) / 1024)


def _peak_kibibytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def run(rounds: int) -> list[dict[str, object]]:
    """All figures, as rows of a table."""
    rows: list[dict[str, object]] = []
    for batch, times in ((1, 4), (8, 1)):
        ours = classifier("resnet50")
        variants = forward_variants(ours, batch) | grad_cam_variants(ours.backbone, batch)
        seconds = interleaved(variants, times * rounds, f"forward, {batch}")
        for name in list(seconds)[1:]:
            limit = LIMITS["forward"] if name == "ours" else None
            what = f"forward with map ÷ plain ({name}), batch {batch}"
            rows.append({"what": what, "backbone": "resnet50", **ratio(seconds, name), "limit": limit})
    for backbone in ("resnet18", "resnet50"):
        variants = {"plain": plain_step(backbone)}
        variants |= {
            name: our_step(classifier(backbone), arguments(share)) for name, share in (("step", 1.0), (QUARTER, 0.25))
        }
        seconds = interleaved(variants, max(rounds // 2, 4), f"step, {backbone}")
        for name in list(seconds)[1:]:
            row = {"what": f"two-pass {name} ÷ plain step, batch {STEP_BATCH}", "backbone": backbone}
            rows.append({**row, "limit": LIMITS[name], **ratio(seconds, name)})
        memory = {which: peak_memory(backbone, which) for which in ("plain", "ours")}
        value = {"value": memory["ours"] / memory["plain"], "limit": LIMITS["memory"]}
        what = f"peak memory of the step ÷ plain, batch {STEP_BATCH}"
        rows.append({"what": what, "backbone": backbone, **value, **memory})
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """As Markdown."""
    lines = ["| what | backbone | ratio | quartiles | aim |", "|---|---|---:|---|---:|"]
    for row in rows:
        spread = f"{row['low']:.3f}–{row['high']:.3f} ({row['count']})" if "low" in row else "–"
        aim = f"≤ {row['limit']}" if row["limit"] else "–"
        lines.append(f"| {row['what']} | {row['backbone']} | {row['value']:.3f} | {spread} | {aim} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("outputs/cost"))
    parser.add_argument("--memory-of", choices=("plain", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--backbone", default="resnet18", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.memory_of:
        return memory_of(options.backbone, options.memory_of)
    rows = run(options.rounds)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "cost.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    text = f"{machine()}\n\n{table(rows)}\n"
    (options.output / "cost.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
