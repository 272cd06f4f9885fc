"""What an evaluation costs beyond the forward passes that its measures need by definition.

Our map and Grad-CAM's are measured by every measure of `evaluate_maps`, and so are the controls. Every image that goes
through the network meanwhile is counted; then as many images go through it alone, in batches of the same size. The
ratio of the two process times is printed, with the peak of memory over the first and over all batches, which must not
grow. Usage:

    python -m benchmarks.evaluation_cost --images 48 --backbone resnet50 --image_size 128
"""

import os
import platform
import resource
import time
from collections import Counter

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from antehoc_hf import AnteHocForImageClassification
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.explainers import measured_explainers
from benchmarks.output import parser


def settings(images: int) -> EvaluationSettings:
    """Every measure on every image."""
    return EvaluationSettings(
        areas=(0.05, 0.1, 0.3, 0.5), insertion_deletion_images=images, insertion_deletion=FORMS, road_images=images
    )


def batches(images: int, size: int, batch_size: int) -> list[dict[str, torch.Tensor]]:
    """Noise of several scales; what is in the images does not change what they cost."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for start in range(0, images, batch_size):
        count = min(batch_size, images - start)
        coarse = torch.randn(count, 3, size // 8, size // 8, generator=generator)
        pixel_values = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        labels = torch.randint(0, 10, (count,), generator=generator)
        found.append({"pixel_values": pixel_values, "labels": labels, "mask": (pixel_values[:, :1] > 0).float()})
    return found


def evaluated(model: AnteHocForImageClassification, data: list[dict[str, torch.Tensor]]) -> tuple[float, Counter[int]]:
    """Process time of the evaluation, and how often a batch of which size went through the backbone."""
    calls: Counter[int] = Counter()
    handle = model.backbone.register_forward_pre_hook(lambda module, inputs: calls.update([len(inputs[0])]))
    count = sum(len(batch["labels"]) for batch in data)
    begun = time.process_time()
    evaluate_maps(model, data, settings(count), explainers=measured_explainers(["grad-cam"], model), progress=False)
    seconds = time.process_time() - begun
    handle.remove()
    return seconds, calls


@torch.no_grad()
def alone(model: AnteHocForImageClassification, calls: Counter[int], size: int, share: float) -> float:
    """Process time of these forward passes by themselves, from a share of the calls of each batch size."""
    seconds = 0.0
    for count, times in sorted(calls.items()):
        images = torch.randn(count, 3, size, size)
        made = max(1, round(share * times))
        begun = time.process_time()
        for _ in range(made):
            model.backbone(images)
        seconds += (time.process_time() - begun) * times / made
    return seconds


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--images", type=int, default=48)
    command.add_argument("--batch_size", type=int, default=16)
    command.add_argument("--backbone", default="resnet50")
    command.add_argument("--image_size", type=int, default=128)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--alone_share", type=float, default=1.0, help="of the passes to make again by themselves")
    options = command.parse_args()
    torch.set_num_threads(1)
    model = AnteHocForImageClassification.from_backbone(
        options.backbone, num_labels=10, image_size=options.image_size
    ).eval()
    data = batches(options.images, options.image_size, options.batch_size)
    evaluated(model, data[:1])  # warm, and the memory that one batch needs
    first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(options.rounds):
        seconds, calls = evaluated(model, data)
        passes = alone(model, calls, options.image_size, options.alone_share)
        images = sum(count * times for count, times in calls.items())
        print(
            f"{options.images} images, {images} passes of an image: evaluation {seconds:.1f} s, the passes alone "
            f"{passes:.1f} s, ratio {seconds / passes:.3f}",
            flush=True,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"Peak memory: {first / 1024:.0f} MiB with one batch, {peak / 1024:.0f} MiB with {len(data)}")
    print(f"{options.backbone}, {options.image_size} px, {platform.machine()}, torch {torch.__version__}, one thread")


if __name__ == "__main__":
    main()
