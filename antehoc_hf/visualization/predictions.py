"""Right and wrong predictions with what the model looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.visualization.images import Image, denormalise, energy_pictures
from antehoc_hf.visualization.panel import Caption, panel


@torch.no_grad()
def figure_of_predictions(
    model: nn.Module,
    pixel_values: Tensor,
    labels: Tensor,
    *,
    path: str | Path | None = None,
    label_names: Mapping[int, str] | Sequence[str] | None = None,
    processor: Any = None,
    max_images: int = 8,
    columns: int = 1,
    title: str | None = None,
    pictures: Image | None = None,
) -> Figure:
    """Right and wrong predictions with their maps, right ones in green first, wrong ones in red below.

    Args:
        model (`AnteHocForImageClassification`): left in the mode it was in.
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        labels (`Tensor`): (B,) true classes.
        path (`str`, *optional*): where to save the figure, e.g. `"predictions.png"`.
        label_names (`dict` or `list`, *optional*): names of the classes; else those of the model's configuration.
        processor (*optional*): whose `image_mean` and `image_std` normalised the images; else the model's
            configuration is asked.
        max_images (`int`): shown at most; right and wrong ones in equal parts as far as there are.
        columns (`int`): how many images stand side by side.
        title (`str`, *optional*): of the figure; else how many of all images given are right, and which classes among
            them never are right.
        pictures (`np.ndarray`, *optional*): (B, H, W, 3) uint8, to draw on in place of the network's small input, see
            `photo_parts`.

    Returns:
        `Figure`: saved, if a path was given, with a fixed resolution.

    Raises:
        ValueError: if there is no image, or labels and images differ in number.
    """
    if len(pixel_values) == 0 or labels.shape != (len(pixel_values),):
        raise ValueError(
            f"labels must be one class number for each image, but there are {len(pixel_values)} images and labels of "
            f"shape {tuple(labels.shape)}."
        )
    network: Any = model
    with evaluation_mode(model):
        pixel_values = pixel_values.to(device=network.device, dtype=network.dtype)
        outputs = network(pixel_values=pixel_values)
    probabilities = outputs.logits.float().softmax(dim=1).cpu()
    labels, predicted = labels.cpu(), probabilities.argmax(dim=1)
    chosen = _right_and_wrong(predicted == labels, max_images)
    config = network.config
    source = config if processor is None else processor
    names = config.id2label if label_names is None else label_names
    captions = []
    for index in chosen.tolist():
        said, true = int(predicted[index]), int(labels[index])
        text = f"{_name(names, said)}  {100 * float(probabilities[index, said]):.0f} %"
        detail = "" if said == true else f"is {_name(names, true)}  {100 * float(probabilities[index, true]):.0f} %"
        captions.append(Caption(text, detail, right=said == true))
    here, maps = (values[chosen.to(values.device)] for values in (pixel_values, outputs.interpretation_map))
    if pictures is None:
        mean, std = source.image_mean, source.image_std
        images, energy = denormalise(here, mean, std), denormalise(network.energy_map(here, maps), mean, std)
    else:
        images = pictures[chosen.numpy()]
        energy = energy_pictures(images, maps)
    figure = panel(
        images,
        maps.cpu(),
        captions,
        energy_images=energy,
        degenerate=outputs.degenerate.cpu()[chosen],
        title=_title(predicted, labels, names) if title is None else title,
        columns=columns,
    )
    if path is not None:
        figure.savefig(path)
    return figure


def _title(predicted: Tensor, labels: Tensor, names: Mapping[int, str] | Sequence[str]) -> str:
    """How many are right; and the classes of which none is, where there are at least two images of each."""
    right = predicted == labels
    title = f"{int(right.sum())} of {len(labels)} predictions right"
    classes_seen = labels.unique().tolist()
    never = [k for k in classes_seen if int((labels == k).sum()) > 1 and not bool(right[labels == k].any())]
    if not never:
        return title
    listed = ", ".join(_name(names, k) for k in never[:3]) + (f" and {len(never) - 3} more" if len(never) > 3 else "")
    return f"{title}; never right: {listed}"


def _right_and_wrong(right: Tensor, count: int) -> Tensor:
    """Indices of at most `count` images, right ones first, half of them wrong if there are so many."""
    if count < 1:
        raise ValueError(f"max_images={count!r} must be at least 1.")
    hits, misses = right.nonzero().flatten(), (~right).nonzero().flatten()
    num_hits = min(len(hits), max(count - count // 2, count - len(misses)))
    return torch.cat([hits[:num_hits], misses[: count - num_hits]])


def _name(names: Mapping[int, str] | Sequence[str], index: int) -> str:
    name = str(names[index])
    return name if len(name) <= 24 else name[:23] + "…"
