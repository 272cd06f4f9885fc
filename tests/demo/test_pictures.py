"""The demo's pictures and texts: what a threshold leaves, and nothing of a stranger's unescaped."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from antehoc_hf.demo import parts
from antehoc_hf.demo.analysis import (
    SHORT_SIDE,
    Analysis,
    Classes,
    Compared,
    Faithfulness,
    Measured,
    Points,
    Sentence,
    Word,
)
from antehoc_hf.demo.pictures import data_url, view


@pytest.fixture
def looked() -> Analysis:
    """A white image whose map has a bright corner of 8 × 8 (value 1) and a weaker one (value 0.5)."""
    map_ = torch.zeros(1, 1, 32, 32)
    map_[..., :8, :8] = 1.0
    map_[..., 24:, 24:] = 0.5
    white = np.full((SHORT_SIDE, SHORT_SIDE, 3), 255, dtype=np.uint8)
    answer = Classes((("cat", 0.75), ("<script>", 0.25)))
    return Analysis(answer, torch.zeros(1, 3, 32, 32), white, map_, degenerate=False, seconds=0.012)


def test_threshold_zero_is_the_map_in_colour(looked):
    pytest.importorskip("scipy")
    seen = view(looked, 0.0)
    pixels = np.asarray(seen.picture).astype(int)
    assert pixels.shape == (SHORT_SIDE, SHORT_SIDE, 3)
    assert np.ptp(pixels[40, 40]) > 30  # the bright corner has a colour
    assert np.ptp(pixels[40, 480]) == 0  # and what the map leaves out is grey
    assert seen.regions == ()
    assert seen.shown == 1


def test_above_it_is_what_the_map_leaves_of_the_image(looked):
    pytest.importorskip("scipy")
    both, strong = view(looked, 0.4, 0.0), view(looked, 0.8, 0.0)
    assert both.shown == pytest.approx(2 / 16)
    assert strong.shown == pytest.approx(1 / 16)
    assert [region.box for region in both.regions] == [(0, 0, 8, 8), (24, 24, 32, 32)]
    assert [region.box for region in strong.regions] == [(0, 0, 8, 8)]
    kept, lost = np.asarray(both.picture), np.asarray(strong.picture)
    assert kept[450, 450].tolist() == [255, 255, 255]
    assert lost[450, 450].tolist() == [0, 0, 0]
    assert lost[64, 64].tolist() == [255, 255, 255]
    text = parts.regions(looked, strong, 0.8)
    assert "6.2\u00a0%" in text
    assert "1.00" in text
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        view(looked, 1.2)


def test_colour_and_threshold_do_not_touch_each_other(looked):
    pytest.importorskip("scipy")
    whole, cut = (np.asarray(view(looked, threshold).picture).astype(int) for threshold in (0.0, 0.8))
    assert np.array_equal(cut[40:100, 40:100], whole[40:100, 40:100]), "what is left keeps its colours"
    assert cut[450, 450].tolist() == [0, 0, 0]
    faint = np.asarray(view(looked, 0.0, 0.5).picture)[64, 64]
    assert np.array_equal(faint, np.round((whole[64, 64] + 255) / 2)), "half of the map's colours, half of the image"
    assert np.array_equal(np.asarray(view(looked, 0.0, 0.0).picture), looked.picture)
    with pytest.raises(ValueError, match=r"opacity=-0.1 must be in \[0, 1\]"):
        view(looked, 0.0, -0.1)


def test_numbers_of_near_points_do_not_hide_each_other(looked):
    letters = []
    for spread in (0.3, 0.02):
        places = 0.5 + spread * torch.tensor([[-1.0, -1], [1, -1], [0, 0.2], [0, 0.1], [0, 0.15]])
        answer = Points(tuple("abcde"), places, tuple((x, y) for x, y in places.tolist()))
        plain = replace(looked, answer=answer, map=torch.zeros(1, 1, 32, 32))
        letters.append(int((np.asarray(view(plain).picture).max(axis=-1) < 60).sum()))
    assert letters[1] == pytest.approx(letters[0], rel=0.1), "dark pixels, of which a hidden number has fewer"


def test_a_class_that_was_chosen_is_named_with_its_probability(looked):
    classes = Classes(tuple((f"class {k}", (10 - k) / 55) for k in range(10)), explained=7)
    text = parts.answer(replace(looked, answer=classes))
    assert [f"class {k}<" in text for k in range(10)] == [True] * 3 + [False] * 4 + [True] + [False] * 2
    assert text.count("<li>") == 4


def test_a_picture_unlike_the_training_images_is_not_praised(looked):
    rows = (Faithfulness("this map", 0.9, 0.8), Faithfulness("centre", 0.5, 0.1), Faithfulness("random", 0.5, 0.1))
    measured = Measured(0.9, rows)
    for strangeness in (None, 0.99):
        usual = replace(looked, strangeness=strangeness)
        assert "Unlike" not in parts.answer(usual)
        assert "better than either control" in parts.faithfulness(usual, measured)
    strange = replace(looked, strangeness=3.14)
    assert "Unlike anything it was trained on" in parts.answer(strange)
    assert "3.1 times" in parts.answer(strange)
    assert "better than either control" not in parts.faithfulness(strange, measured)
    assert "say nothing" in parts.faithfulness(strange, measured)


def test_a_map_that_shows_nothing_colours_nothing(looked):
    nothing = replace(looked, map=torch.full((1, 1, 32, 32), 0.7), degenerate=True)
    seen = view(nothing, 0.0)
    assert np.ptp(np.asarray(seen.picture), axis=2).max() == 0
    assert "shows nothing" in parts.regions(nothing, seen, 0.0)


def test_points_are_drawn_where_they_are(looked):
    points = Points(("eye", "nose"), torch.tensor([[0.25, 0.5], [0.75, 0.5]]), ((8.0, 16.0), (24.0, 16.0)))
    pixels = np.asarray(view(replace(looked, map=looked.map * 0, answer=points), 0.0).picture)
    assert pixels[SHORT_SIDE // 2, SHORT_SIDE // 4].tolist() == [25, 195, 255]
    assert pixels[SHORT_SIDE // 2, SHORT_SIDE // 2].tolist() == pixels[5, 5].tolist()
    table = parts.answer(replace(looked, answer=points))
    assert "<td>nose</td><td>24</td><td>16</td>" in table


def test_texts_hold_no_ones_markup(looked):
    text = parts.answer(looked)
    assert "75.0\u00a0%" in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    sentence = Sentence("a <b>", 0.5, (Word('"><img>', 0.5, looked.map[0]),), torch.zeros(1, 3))
    text = parts.answer(replace(looked, answer=sentence)) + parts.words(replace(looked, answer=sentence))
    assert "<b>" not in text
    assert '"><img>' not in text
    assert "a &lt;b&gt;" in text
    assert "<x>" not in parts.alert("<x>")
    assert parts.alert("") == ""


def test_what_held_out_images_say_of_the_maps_stands_below_the_answer(looked):
    assert "held-out" not in parts.answer(looked)
    text = parts.answer(replace(looked, verdict="Words not learned: <fan>."))
    assert "Words not learned: &lt;fan&gt;." in text


def test_methods_with_their_times(looked):
    text = parts.comparison(
        looked,
        [
            Compared("antehoc", looked.map, 0.0042),
            Compared("sise", looked.map, 2.5, "found no evidence"),
            Compared("score-cam", None, note="needs <torchcam>"),
        ],
    )
    assert "4\u00a0ms" in text
    assert "antehoc: the pass that also made the answer" in text
    assert "2.5\u00a0s · found no evidence" in text
    assert "needs &lt;torchcam&gt;" in text
    assert text.count("<img ") == 2
    assert "Choose at least one" in parts.comparison(looked, [])


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ((0.8, 0.4), "better than either control"),
        ((0.8, 0.0), "does not beat both"),
        ((0.3, -0.2), "do not rely on it"),
        ((0.505, 0.1), "do not rely on it"),  # a hair makes no difference
    ],
)
def test_what_to_make_of_the_numbers(looked, own, words):
    rows = (Faithfulness("this map", *own), Faithfulness("centre", 0.5, 0.1), Faithfulness("random", 0.5, 0.1))
    text = parts.faithfulness(looked, Measured(0.9, rows))
    assert words in text
    assert "90.0\u00a0%" in text
    assert ("−0.20" in text) == (own[1] < 0)
    assert "no probability" in parts.faithfulness(looked, None)


def test_a_picture_inside_an_address():
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    url = data_url(picture)
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)
