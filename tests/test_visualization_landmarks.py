"""Points are drawn where they are, and the paper's Figure 4 has a row for every part."""

import math

import numpy as np
import pytest
import torch

from antehoc_hf import AnteHocForLandmarkDetection
from antehoc_hf.visualization.landmarks import figure_of_landmarks, figure_of_parts, landmark_panel


def drawn(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def blue(pixels):
    """Where the colour of a found point is, for pictures without any blue."""
    return (pixels[..., 2] > 200) & (pixels[..., 0] < 90)


def picture(figure, index):
    """The pixels of one of the figure's axes."""
    pixels = drawn(figure)
    height, width = pixels.shape[:2]
    box = figure.axes[index].get_position()
    rows = slice(round((1 - box.y1) * height), round((1 - box.y0) * height))
    return pixels[rows, round(box.x0 * width) : round(box.x1 * width)]


@pytest.mark.parametrize("point", [(0.25, 0.5), (0.8, 0.1)])
def test_a_point_is_drawn_where_it_is(point):
    images = np.full((1, 40, 60, 3), 120, dtype=np.uint8)
    maps = torch.linspace(0, 1, 40 * 60).view(1, 1, 40, 60)
    landmarks = torch.tensor([[point, (math.nan, math.nan)]])
    figure = landmark_panel(images, landmarks, maps, images, ["a face"], labels=landmarks)
    cells = [picture(figure, index) for index in range(4)]
    marked = [index for index, cell in enumerate(cells) if blue(cell).any()]
    assert len(marked) == 1
    cell = cells[marked[0]]
    rows, columns = np.nonzero(blue(cell))
    assert columns.mean() / cell.shape[1] == pytest.approx(point[0], abs=0.02)
    assert rows.mean() / cell.shape[0] == pytest.approx(point[1], abs=0.03)
    lefts = [figure.axes[index].get_position().x0 for index in (0, marked[0])]
    assert lefts == sorted(lefts)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["found", "true"]
    headings = sorted((axes.get_position().x0, axes.get_title()) for axes in figure.axes[:4])
    assert [title for _, title in headings] == ["image", "points", "map", "energy map"]


def test_points_of_another_number_of_images():
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"points of 2 images must be \(N, K, 2\)"):
        landmark_panel(images, torch.zeros(1, 3, 2), torch.rand(2, 1, 8, 8), images)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {
        part: AnteHocForLandmarkDetection.from_backbone("test_resnet", num_landmarks=count, image_size=64)
        for part, count in (("nose", 9), ("eyes", 12))
    }


def test_a_row_for_every_part(models, tmp_path):
    pixels = torch.randn(2, 3, 64, 64)
    modes = [module.training for model in models.values() for module in model.modules()]
    figure = figure_of_parts(models, pixels, path=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(figure.axes) == 2 * 2 * 4 + 1  # parts, images, kinds; and the bar of colours
    assert {"nose", "eyes"} <= {text.get_text() for text in figure.texts}
    assert [module.training for model in models.values() for module in model.modules()] == modes
    with pytest.raises(ValueError, match="nothing to draw"):
        figure_of_parts({}, pixels)


def test_a_figure_of_one_model_in_half_precision(models):
    model = models["nose"].to(torch.bfloat16)
    figure = figure_of_landmarks(model, torch.randn(1, 3, 64, 64), torch.rand(1, 9, 2), title="One")
    assert drawn(figure).std() > 10
