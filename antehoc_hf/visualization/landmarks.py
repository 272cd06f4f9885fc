"""Points in images, and what the model that found them looked at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from antehoc_hf.evaluation.networks import evaluation_mode
from antehoc_hf.visualization.images import COLORMAP, Image, denormalise, energy_pictures
from antehoc_hf.visualization.layout import MARGIN
from antehoc_hf.visualization.panel import Caption, as_captions, captioned, pictures_of

FOUND, TRUE = "#19c3ff", "#ff9a1f"
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
    """A row for each image: image, the points found in it, map and energy map.

    Args:
        images (`np.ndarray`): (N, H, W, 3) uint8, see `denormalise`.
        landmarks (`Tensor`): (N, K, 2), found, in units of width and height; drawn as blue dots.
        maps (`Tensor`): (N, 1, H, W) in [0, 1].
        energy_images (`np.ndarray`): (N, H, W, 3) uint8: what the map leaves of the image.
        captions (`list`, *optional*): N of them.
        labels (`Tensor`, *optional*): (N, K, 2), the true points, drawn as orange rings; NaN is left out.
        degenerate, title, columns: see `panel`.

    Raises:
        ValueError: if there is no image, or numbers or shapes don't fit.
    """
    if landmarks.ndim != 3 or len(landmarks) != len(images) or landmarks.shape[2] != 2:
        raise ValueError(f"The points of {len(images)} images must be (N, K, 2), not {tuple(landmarks.shape)}.")
    rows = [
        {"image": image, "points": image, "map": map_, "energy map": energy}
        for (image, map_, _), energy in zip(pictures_of(images, maps, degenerate), energy_images, strict=True)
    ]
    figure, layout = captioned(rows, as_captions(captions, len(images)), title, columns, COLORMAP)
    for index in range(len(images)):
        drawn = _draw_points(
            figure.axes[index * _KINDS + 1], landmarks[index], None if labels is None else labels[index]
        )
    corner = layout.place(layout.width - MARGIN, layout.height - 0.24)
    style = {"ncols": len(drawn), "fontsize": 9, "frameon": False, "borderpad": 0.0, "markerscale": 1.6}
    figure.legend(list(drawn.values()), list(drawn), loc="lower right", bbox_to_anchor=corner, **style)
    return figure


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
    pictures: Image | None = None,
) -> Figure:
    """Points that a model finds in images, with their maps.

    Args:
        model (`AnteHocForLandmarkDetection`): left in the mode it was in.
        pixel_values (`Tensor`): (B, 3, H, W), normalised.
        labels (`Tensor`, *optional*): (B, K, 2), the true points.
        captions (`list`, *optional*): one for each image.
        path (`str`, *optional*): where to save the figure.
        title (`str`, *optional*): of the figure.
        columns (`int`): how many images stand side by side.
        pictures (`np.ndarray`, *optional*): (B, H, W, 3) uint8, to draw on in place of the input, see `photo_parts`.
    """
    outputs, images, energy = _seen(model, pixel_values, pictures)
    figure = landmark_panel(
        images,
        outputs.landmarks.float().cpu(),
        outputs.interpretation_map.cpu(),
        energy,
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
    models: Mapping[str, nn.Module], pixel_values: Tensor, *, path: str | Path | None = None, title: str | None = None
) -> Figure:
    """The paper's Figure 4: the same images through a model of each part, a row for each part.

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
    seen = [_seen(model, pixel_values) for model in models.values()]
    points = [outputs.landmarks.float().cpu() for outputs, _, _ in seen]
    most = max(found.shape[1] for found in points)
    # Models of different parts find different numbers of points; what is missing is NaN, which is not drawn.
    padded = [
        torch.cat([found, found.new_full((len(found), most - found.shape[1], 2), torch.nan)], dim=1)
        for found in points
    ]
    figure = landmark_panel(
        np.concatenate([images for _, images, _ in seen]),
        torch.cat(padded),
        torch.cat([outputs.interpretation_map.cpu() for outputs, _, _ in seen]),
        np.concatenate([energy for _, _, energy in seen]),
        [part if index == 0 else "" for part in models for index in range(len(pixel_values))],
        title=title,
        columns=len(pixel_values),
    )
    if path is not None:
        figure.savefig(path)
    return figure


def _seen(model: nn.Module, pixel_values: Tensor, pictures: Image | None = None) -> tuple[Any, Image, Image]:
    """What the model makes of images, these as pictures, and what its maps leave of them."""
    network: Any = model
    pixels = pixel_values.to(device=network.device, dtype=network.dtype)
    with evaluation_mode(model):
        outputs = network(pixel_values=pixels)
        energy = network.energy_map(pixels, outputs.interpretation_map)
    if pictures is not None:
        return outputs, pictures, energy_pictures(pictures, outputs.interpretation_map)
    mean, std = network.config.image_mean, network.config.image_std
    return outputs, denormalise(pixels, mean, std), denormalise(energy, mean, std)


def _draw_points(axes: Axes, found: Tensor, true: Tensor | None) -> dict[str, Any]:
    """Points (K, 2) in units of width and height over the image that `axes` shows; gives what a legend explains."""
    height, width = axes.get_images()[0].get_size()
    size = max(8.0, 36.0 - 0.4 * len(found))
    drawn: dict[str, Any] = {}
    styles: dict[str, tuple[Tensor | None, dict[str, Any]]] = {
        "found": (found, {"s": 0.6 * size, "c": FOUND, "edgecolors": "#10202a", "linewidths": 0.4}),
        "true": (true, {"s": 2.2 * size, "facecolors": "none", "edgecolors": TRUE, "linewidths": 0.9}),
    }
    for name, (points, style) in styles.items():
        if points is not None:
            known = points[torch.isfinite(points).all(dim=1)].detach().float().cpu()
            # As `imshow` counts them: whole numbers are the centres of pixels.
            x, y = known[:, 0] * width - 0.5, known[:, 1] * height - 0.5
            drawn[name] = axes.scatter(x.numpy(), y.numpy(), **style)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return drawn
