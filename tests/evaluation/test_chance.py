"""Whether a classifier knows more than one that guesses; the bounds are worked out by hand."""

import pytest

from antehoc_hf.evaluation.chance import as_one_answer, as_shuffled, close_to_chance


@pytest.mark.parametrize(
    ("right", "classes", "images", "close"),
    [
        (0.25, 10, 20, True),  # 0.1 + 3 · √(0.09 / 20) = 0.301
        (0.31, 10, 20, False),
        (0.14, 10, 1000, True),  # three errors are 0.028, but half of chance is 0.05
        (0.16, 10, 1000, False),
        (0.59, 2, 10_000, True),  # at most 0.1 above
        (0.61, 2, 10_000, False),
        (1.0, 2, 3, False),  # more than all cannot be right
        (0.0, 10, 1, False),  # one image shows nothing
    ],
)
def test_close_to_chance(right: float, classes: int, images: int, close: bool) -> None:
    sentence = close_to_chance(right, classes, images)
    assert bool(sentence) is close
    if close:
        assert f"{right:.0%} of {images} images right, guessing {1 / classes:.0%}" in sentence
        assert "these maps explain nothing" in sentence


@pytest.mark.parametrize(
    ("error", "of_mean", "words"),
    [
        (12.0, 11.9, "No better than one answer for all images (error 12 %"),
        (11.9, 11.9, "No better"),
        (11.8, 11.9, "Hardly better"),
        (11.0, 11.9, ""),
    ],
)
def test_points_no_better_than_one_answer_for_all_images(error: float, of_mean: float, words: str) -> None:
    sentence = as_one_answer(error, of_mean)
    assert sentence.startswith(words)
    assert ("these maps explain nothing" in sentence) == bool(words)
    assert bool(sentence) == bool(words)


@pytest.mark.parametrize(
    ("precision", "of_others", "poor"), [(0.3, 0.25, True), (0.36, 0.25, False), (1, 0.96, False)]
)
def test_several_classes_found_no_better_than_by_other_images(precision: float, of_others: float, poor: bool) -> None:
    assert ("these maps explain nothing" in as_shuffled(precision, of_others)) == poor
