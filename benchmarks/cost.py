"""How costs are measured: forward and training step against the plain timm network, in one run, on one thread.

Variants take turns, times are those of the process, and every figure is a median of ratios within a round, so that
neither a machine whose speed drifts nor other work on it matters much. The table is `python -m benchmarks.bench`.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.training import AnteHocTrainer, AnteHocTrainingArguments

SIZE, CLASSES, STEP_BATCH = 128, 200, 16
Run = Callable[[], object]


def machine() -> str:
    """What the figures were measured on."""
    return f"{platform.machine()}, 1 thread, torch {torch.__version__}, timm {timm.__version__}"


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
    return AnteHocForImageClassification.from_backbone(
        backbone, **{"num_labels": CLASSES, "image_size": SIZE, **options}
    )


def forward_variants(ours: AnteHocForImageClassification, batch: int) -> dict[str, Run]:
    """The network alone and with its map: the same weights in the same memory, so that caches favour nobody."""
    ours, pixels = ours.eval(), torch.randn(batch, 3, *ours.config.image_size)

    def without_gradient(network: nn.Module) -> Run:
        return torch.inference_mode()(lambda: network(pixels))

    return {"plain": without_gradient(ours.backbone), "ours": without_gradient(ours)}


def grad_cam_variants(ours: AnteHocForImageClassification, batch: int) -> dict[str, Run]:
    """Grad-CAM where our map reads last, for the predicted class, as captum and torchcam offer it; nothing for a
    transformer's tokens, of which neither makes a map by itself.
    """
    variants: dict[str, Run] = {}
    point, plain = ours.config.tap_points[-1], ours.backbone
    if point.get("layout", "NCHW") != "NCHW":
        return variants
    layer, pixels = plain.get_submodule(point["module"]), torch.randn(batch, 3, *ours.config.image_size)

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
