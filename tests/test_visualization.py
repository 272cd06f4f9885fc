"""Pictures: pixels are right, the figure says what happened, and nothing global is touched."""

import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf.modeling import AnteHocForImageClassification
from antehoc_hf.modeling.image_geometry import evaluation_geometry
from antehoc_hf.visualization import Caption, denormalise, overlay, panel, photo_parts
from antehoc_hf.visualization.predictions import figure_of_predictions

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.5]


def some_images(count=2, side=16):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def some_maps(count=2, side=16):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(0))


def texts(figure):
    """All text of a figure, wherever it stands and in one line, with its colour."""
    found = {}
    for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text")):
        found[text.get_text().replace("\n", " ")] = text.get_color()
    return found


def test_denormalise_gives_the_pixels_back():
    images = some_images()
    pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255
    normalised = (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert np.array_equal(denormalise(normalised, MEAN, STD), images)
    assert np.array_equal(denormalise(torch.full((1, 3, 1, 1), 99.0), MEAN, STD), np.full((1, 1, 1, 3), 255))
    assert denormalise(normalised.bfloat16(), MEAN, STD).dtype == np.uint8


def test_overlay_is_grey_where_the_map_is_zero_and_coloured_where_it_is_one():
    image = some_images(1)[0]
    map_ = torch.zeros(1, 16, 16)
    map_[0, 4, 4] = 1
    result = overlay(image, map_, alpha=1.0)
    grey = np.ptp(result.astype(int), axis=2)
    assert grey[4, 4] > 50
    assert (np.delete(grey.flatten(), 4 * 16 + 4) == 0).all()
    assert result[4, 4].tolist() == [252, 255, 164]  # the upper end of the colour scale
    assert np.array_equal(overlay(image, torch.ones(16, 16), alpha=0.0), overlay(image, torch.zeros(16, 16)))


def test_a_map_is_made_as_large_as_the_picture():
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    small = torch.zeros(1, 2, 2)
    small[0, 0, 0] = 1
    drawn = overlay(picture, small, alpha=1.0).astype(int)
    assert drawn[0, 0].tolist() == [252, 255, 164]
    assert np.ptp(drawn[-1, -1]) == 0


class Square:
    """A processor that squares the middle of a photo."""

    size: ClassVar = {"height": 8, "width": 8}

    def geometry(self, height, width):
        return evaluation_geometry(height, width, (8, 8), 1.0, "center")


def test_maps_are_drawn_on_the_part_of_the_photo_that_the_network_sees():
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, 32:96] = np.arange(64, dtype=np.uint8)[:, None, None]
    (part,) = photo_parts([Image.fromarray(pixels)], Square(), short_side=64)
    assert np.array_equal(part, pixels[:, 32:96])


def test_a_class_that_is_never_right_is_named(model):
    pixels = torch.randn(30, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        predicted = model.eval()(pixel_values=pixels).logits.argmax(dim=1)
    labels, never = predicted.clone(), int(predicted.bincount(minlength=3).argmin())
    labels[predicted == never] = (never + 1) % 3
    labels[(predicted != never).nonzero()[:2]] = never
    right = int((labels == predicted).sum())
    title = f"{right} of 30 predictions right; never right: {model.config.id2label[never]}"
    assert title in texts(figure_of_predictions(model, pixels, labels))


def test_overlay_of_what_is_not_finite_shows_nothing():
    image = some_images(1)[0]
    assert np.array_equal(overlay(image, torch.full((16, 16), torch.nan)), overlay(image, torch.zeros(16, 16)))


def test_a_long_title_stays_within_the_figure():
    sentence = "No better than one answer for all images (error 20.1 %, that of the mean of all true points 19.8 %)"
    figure = panel(some_images(1), some_maps(1), title=f"{sentence}: these maps explain nothing.")
    (title,) = (text for text in figure.texts if "No better" in text.get_text())
    assert title.get_window_extent().x1 < figure.bbox.x1
    assert title.get_window_extent().y0 > figure.axes[0].title.get_window_extent().y1


def test_panel_saves_a_png_and_leaves_pyplot_alone(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    figure = panel(
        some_images(3), some_maps(3), ["a", "b", "c"], energy_images=some_images(3), title="three", columns=2
    )
    figure.savefig(tmp_path / "panel.png")
    assert len(figure.axes) == 3 * 4 + 1  # the pictures, and one scale of colours
    assert ("matplotlib.pyplot" in sys.modules) == loaded
    with Image.open(tmp_path / "panel.png") as saved:
        assert saved.format == "PNG"
        assert saved.size == tuple(int(side) for side in figure.get_size_inches() * figure.dpi)
    assert {"image", "map", "overlay", "energy map", "a", "b", "c", "three", "0", "1"} <= texts(figure).keys()


def test_panel_shows_image_and_map_unchanged():
    images, maps = some_images(1), some_maps(1)
    pictures = [axes.images[0] for axes in panel(images, maps).axes[:3]]
    assert np.array_equal(pictures[0].get_array(), images[0])
    assert np.array_equal(pictures[1].get_array(), maps[0, 0].numpy())
    assert pictures[1].get_clim() == (0, 1)  # one scale: a dim map is drawn dim
    assert np.array_equal(pictures[2].get_array(), overlay(images[0], maps[0]))


def test_maps_that_show_nothing_are_labelled():
    maps = some_maps(4)
    maps[1], maps[2, 0, 3, 3] = 0.7, torch.nan
    drawn = panel(some_images(4), maps, degenerate=torch.tensor([False, False, False, True]))
    labels = [[text.get_text() for text in axes.texts] for axes in drawn.axes[1:12:3]]
    assert labels == [[], ["no evidence"], ["no evidence"], ["no evidence"]]


def test_right_is_green_with_a_tick_and_wrong_red_with_a_cross():
    found = texts(
        panel(some_images(), some_maps(), [Caption("cat", right=True), Caption("dog", "is cat", right=False)])
    )
    assert found["✓ cat"] == "#1b7f5c"
    assert found["✗ dog"] == "#c8322b"
    assert "is cat" in found


def test_a_dollar_sign_is_no_formula(tmp_path):
    panel(some_images(1), some_maps(1), ["$100 \\frac $"]).savefig(tmp_path / "dollar.png")
    assert (tmp_path / "dollar.png").stat().st_size > 0


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    names = {0: "ant", 1: "bee", 2: "cat"}
    return AnteHocForImageClassification.from_backbone("test_resnet", num_labels=3, image_size=64, id2label=names)


def test_figure_of_predictions(model, tmp_path):
    pixels = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.eval()(pixel_values=pixels).logits
    predicted = logits.argmax(dim=1)
    labels = predicted.clone()
    labels[:2] = (labels[:2] + 1) % 3  # two wrong ones
    model.train()
    figure = figure_of_predictions(model, pixels, labels, path=tmp_path / "predictions.png", max_images=4)
    assert model.training
    assert (tmp_path / "predictions.png").is_file()
    found = texts(figure)
    said, true = (model.config.id2label[int(values[0])] for values in (predicted, labels))
    sure = logits[0].softmax(0)
    assert any(text.startswith("4 of 6 predictions right; never right: ") for text in found)
    assert found[f"✗ {said}  {100 * sure[predicted[0]]:.0f} %"] == "#c8322b"
    assert f"is {true}  {100 * sure[labels[0]]:.0f} %" in found
    captions = [text.get_text()[0] for text in figure.texts if text.get_text()[:1] in ("✓", "✗")]
    assert captions == ["✓", "✓", "✗", "✗"]


def test_figure_takes_what_there_is(model):
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model.eval()(pixel_values=pixels).logits.argmax(dim=1)
    figure = figure_of_predictions(model, pixels, labels, max_images=8, label_names=["x" * 40, "y" * 40, "z" * 40])
    assert "3 of 3 predictions right" in texts(figure)
    assert len(figure.axes) == 3 * 4 + 1
    assert all(len(text) < 40 for text in texts(figure))


def test_mistakes_end_in_one_sentence(model):
    images, maps = some_images(), some_maps()
    with pytest.raises(ValueError, match="no colormap named 'jett'"):
        overlay(images[0], maps[0], colormap="jett")
    with pytest.raises(ValueError, match="alpha=2"):
        overlay(images[0], maps[0], alpha=2)
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8"):
        overlay(images[0].astype(float), maps[0])
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        panel(images, maps, ["one"])
    with pytest.raises(ValueError, match=r"must be \(N, 1, H, W\)"):
        panel(images, maps[:, 0])
    with pytest.raises(ValueError, match="columns=0"):
        panel(images, maps, columns=0)
    with pytest.raises(ValueError, match="three numbers each"):
        denormalise(torch.zeros(1, 3, 4, 4), [0.5], [0.5])
    with pytest.raises(ValueError, match="there are 2 images and labels"):
        figure_of_predictions(model, torch.zeros(2, 3, 64, 64), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="max_images=0"):
        figure_of_predictions(model, torch.zeros(2, 3, 64, 64), torch.zeros(2, dtype=torch.long), max_images=0)
