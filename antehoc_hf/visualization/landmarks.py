"""Points in images, and what the model that found them looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.visualization.images import Image, denormalise
from antehoc_hf.visualization.layout import CAPTION
from antehoc_hf.visualization.panel import Caption, panel

FOUND, TRUE = "#19c3ff", "#ffffff"
_KINDS = 4  # pictures of each image: image, points, map, energy map


def landmark_panel(
    images: Image,
    landmarks: Tensor,
    maps: Tensor,
    energy_images: Image,
    captions: Sequence[Caption | str] | None = None,
    *,
    labels: Tensor | None = None,
    degenerate: Tensor | None = None,
    title: str | None = None,
    columns: int = 1,
) -> Figure:
    """
    A row for each image: image, the points found in it, map and energy map.

    Args:
        images (`np.ndarray`): (N, H, W, 3) uint8, see `denormalise`.
        landmarks (`Tensor`): (N, K, 2), found, in units of width and height; drawn in blue.
        maps (`Tensor`): (N, 1, H, W) in [0, 1].
        energy_images (`np.ndarray`): (N, H, W, 3) uint8: what the map leaves of the image.
        captions (`list`, *optional*): N of them.
        labels (`Tensor`, *optional*): (N, K, 2), the true points, drawn as white rings; NaN is left out.
        degenerate, title, columns: see `panel`.

    Raises:
        ValueError: if there is no image, or numbers or shapes don't fit.
    """
    figure = panel(
        images,
        maps,
        captions,
        energy_images=energy_images,
        degenerate=degenerate,
        title=title,
        columns=columns,
    )
    if landmarks.ndim != 3 or len(landmarks) != len(images) or landmarks.shape[2] != 2:
        raise ValueError(f"The points of {len(images)} images must be (N, K, 2), not {tuple(landmarks.shape)}.")
    for index, image in enumerate(images):
        of_image = figure.axes[index * _KINDS : (index + 1) * _KINDS]
        # The panel's overlay gives way to the points, which its colours would hide.
        map_axes, points_axes = of_image[1], of_image[2]
        heading = points_axes.get_title()
        points_axes.clear()
        points_axes.set_axis_off()
        points_axes.imshow(image)
        draw_points(points_axes, landmarks[index], None if labels is None else labels[index])
        places = map_axes.get_position(), points_axes.get_position()
        map_axes.set_position(places[1])
        points_axes.set_position(places[0])
        if heading:
            points_axes.set_title("points", size=9, color=map_axes.title.get_color(), pad=_heading_pad(captions))
    return figure


def draw_points(axes: Axes, found: Tensor, true: Tensor | None = None) -> None:
    """
    Points over the image that `axes` shows: found ones as blue dots, true ones as white rings around them.

    Args:
        axes (`Axes`): with an image by `imshow`.
        found, true (`Tensor`): (K, 2) in units of width and height; NaN is left out.
    """
    height, width = axes.get_images()[0].get_size()
    size = max(5.0, 20.0 - 0.25 * len(found))
    if true is not None:
        x, y = _on_pixels(true, height, width)
        axes.scatter(x, y, s=1.6 * size, facecolors="none", edgecolors=TRUE, linewidths=0.5)
    x, y = _on_pixels(found, height, width)
    axes.scatter(x, y, s=0.6 * size, c=FOUND, edgecolors="#10202a", linewidths=0.35)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


@torch.no_grad()
def figure_of_landmarks(
    model: nn.Module,
    pixel_values: Tensor,
    labels: Tensor | None = None,
    *,
    captions: Sequence[Caption | str] | None = None,
    path: str | Path | None = None,
    title: str | None = None,
    columns: int = 1,
) -> Figure:
    """
    Points that a model finds in images, with their maps.

    Args:
        model (`AnteHocForLandmarkDetection`): left in the mode it was in.
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        labels (`Tensor`, *optional*): (B, K, 2), the true points.
        captions (`list`, *optional*): one for each image.
        path (`str`, *optional*): where to save the figure.
        title (`str`, *optional*): of the figure.
        columns (`int`): how many images stand side by side.
    """
    network: Any = model
    pixel_values = pixel_values.to(device=network.device, dtype=network.dtype)
    with evaluation_mode(model):
        outputs = network(pixel_values=pixel_values)
        energy = network.energy_map(pixel_values, outputs.interpretation_map)
    mean, std = network.config.image_mean, network.config.image_std
    figure = landmark_panel(
        denormalise(pixel_values, mean, std),
        outputs.landmarks.float().cpu(),
        outputs.interpretation_map.cpu(),
        denormalise(energy, mean, std),
        captions,
        labels=None if labels is None else labels.cpu(),
        degenerate=outputs.degenerate.cpu(),
        title=title,
        columns=columns,
    )
    if path is not None:
        figure.savefig(path)
    return figure


@torch.no_grad()
def figure_of_parts(
    models: Mapping[str, nn.Module],
    pixel_values: Tensor,
    *,
    path: str | Path | None = None,
    title: str | None = None,
) -> Figure:
    """
    The paper's Figure 4: the same images through a model of each part, a row for each part.

    Args:
        models (`dict`): part → model of its points. All take images of one size and normalisation.
        pixel_values (`Tensor`): (B, 3, H, W), normalised; the images stand side by side.
        path (`str`, *optional*): where to save the figure.
        title (`str`, *optional*): of the figure.

    Raises:
        ValueError: if there is no model or no image.
    """
    if not models or len(pixel_values) == 0:
        raise ValueError("There is nothing to draw: give at least one model and one image.")
    rows: list[tuple[Any, ...]] = []
    for part, model in models.items():
        network: Any = model
        pixels = pixel_values.to(device=network.device, dtype=network.dtype)
        with evaluation_mode(model):
            outputs = network(pixel_values=pixels)
            energy = network.energy_map(pixels, outputs.interpretation_map)
        mean, std = network.config.image_mean, network.config.image_std
        seen, left = denormalise(pixels, mean, std), denormalise(energy, mean, std)
        for index in range(len(pixels)):
            points, map_ = outputs.landmarks[index].float().cpu(), outputs.interpretation_map[index].cpu()
            rows.append((part if index == 0 else "", seen[index], points, map_, left[index]))
    captions, images, points, maps, energies = zip(*rows, strict=True)
    most = max(len(found) for found in points)
    # Models of different parts find different numbers of points; what is missing is NaN, which is not drawn.
    padded = [torch.cat([found, found.new_full((most - len(found), 2), torch.nan)]) for found in points]
    figure = landmark_panel(
        np.stack(images),
        torch.stack(padded),
        torch.stack(maps),
        np.stack(energies),
        [Caption(caption) for caption in captions],
        title=title,
        columns=len(pixel_values),
    )
    if path is not None:
        figure.savefig(path)
    return figure


def _on_pixels(points: Tensor, height: int, width: int) -> tuple[Any, Any]:
    """As `imshow` counts them: whole numbers are the centres of pixels."""
    known = points[torch.isfinite(points).all(dim=1)].detach().float().cpu()
    return (known[:, 0] * width - 0.5).numpy(), (known[:, 1] * height - 0.5).numpy()


def _heading_pad(captions: Sequence[Caption | str] | None) -> float:
    """As far above the picture as the panel's other headings: above its captions."""
    has_text = any((caption if isinstance(caption, str) else caption.text) for caption in captions or ())
    return 4 + 72 * CAPTION if has_text else 4
