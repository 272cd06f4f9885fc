"""Insertion and deletion on a model whose answer is known by hand."""

import pytest
import torch
from helpers import half_white

from antehoc_hf.evaluation import insertion_deletion


def share_of_white(images):
    """Probability of class 0: the mean of the left half, in [0, 1]."""
    share = images[:, :, :, : images.shape[3] // 2].mean(dim=(1, 2, 3))
    return torch.stack([share, 1 - share], dim=1)


TARGET = torch.zeros(1, dtype=torch.long)
BLACK = torch.zeros(1, 3, 4, 4)


def test_hand_computed():
    # The map ranks the 8 white pixels first: insertion reaches 1 at half of the pixels, deletion 0.
    curves = insertion_deletion(share_of_white, half_white(), half_white()[:, :1], TARGET, steps=4, baseline=BLACK)
    assert curves.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curves.insertion_curve.tolist() == [[0, 0.5, 1, 1, 1]]
    assert curves.deletion_curve.tolist() == [[1, 0.5, 0, 0, 0]]
    assert curves.insertion.tolist() == [0.75]
    assert curves.deletion.tolist() == [0.25]
    assert curves.difference.tolist() == [0.5]


def test_inverse_map_scores_the_opposite():
    curves = insertion_deletion(share_of_white, half_white(), 1 - half_white()[:, :1], TARGET, steps=4, baseline=BLACK)
    assert curves.difference.tolist() == [-0.5]


def test_mean_colour_is_the_image_s_own():
    curves = insertion_deletion(share_of_white, half_white(), half_white()[:, :1], TARGET, steps=2)
    assert curves.insertion_curve.tolist() == [[0.5, 1, 1]]
    assert curves.deletion_curve.tolist() == [[1, 0.5, 0.5]]


def test_patches_are_ranked_by_their_mean():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, 3] = 1.0  # one bright pixel: mean 0.25 in its patch
    maps[0, 0, 2:, :2] = 0.5  # a patch of mean 0.5
    seen = []

    def remember(images):
        seen.append(images.clone())
        return share_of_white(images)

    white = torch.ones(1, 3, 4, 4)
    insertion_deletion(remember, white, maps, TARGET, steps=4, patch_size=2, baseline=BLACK, chunk_size=1)
    first, second = seen[0][0, 0], seen[1][0, 0]
    assert first.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert second.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize("patch_size", [1, 4])
@pytest.mark.parametrize("baseline", ["mean", "blur"])
@pytest.mark.parametrize("kind", ["constant", "random"])
def test_maps_that_explain_nothing_score_zero(kind, baseline, patch_size):
    generator = torch.Generator().manual_seed(0)
    pixels = half_white(64, 16) + 0.1 * torch.rand(64, 3, 16, 16, generator=generator)
    maps = torch.ones(64, 1, 16, 16) if kind == "constant" else torch.rand(64, 1, 16, 16, generator=generator)
    target = torch.zeros(64, dtype=torch.long)
    options = {"steps": 8, "patch_size": patch_size, "baseline": baseline}
    difference = insertion_deletion(share_of_white, pixels, maps, target, **options).difference
    error = difference.std() / 64**0.5
    assert abs(float(difference.mean())) < 3 * float(error)
    known = insertion_deletion(share_of_white, pixels, half_white(64, 16)[:, :1], target, **options).difference
    # What the left half is worth here is far more than the noise (a blur takes little of it away).
    assert float(known.mean()) > 10 * float(error)


def test_chunks_batches_and_brightness_change_nothing():
    generator = torch.Generator().manual_seed(1)
    pixels, maps = torch.rand(3, 3, 8, 8, generator=generator), torch.rand(3, 1, 8, 8, generator=generator).round()
    target = torch.tensor([0, 1, 0])
    whole = insertion_deletion(share_of_white, pixels, maps, target, steps=5).difference
    small = insertion_deletion(share_of_white, pixels, 0.2 + 0.1 * maps, target, steps=5, chunk_size=7).difference
    parts = [
        insertion_deletion(
            share_of_white, pixels[i : i + 1], maps[i : i + 1], target[i : i + 1], steps=5, first_index=i
        )
        for i in range(3)
    ]
    assert torch.allclose(whole, small)
    assert torch.allclose(whole, torch.cat([part.difference for part in parts]))


def test_no_images_give_no_scores():
    curves = insertion_deletion(share_of_white, half_white(0), half_white(0)[:, :1], TARGET[:0], steps=4)
    assert curves.difference.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 3}, "patch_size=3 must be at least 1 and divide height 4 and width 4"),
        ({"steps": 17}, "steps=17 must be between 1 and the number of ranked patches, 16"),
        ({"baseline": "grey"}, "baseline='grey' must be 'mean', 'blur' or a tensor of images"),
        ({"baseline": torch.zeros(1, 3, 2, 2)}, "must have the shape of pixel_values"),
        ({"chunk_size": 0}, "chunk_size=0"),
    ],
)
def test_mistakes_end_in_one_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        insertion_deletion(share_of_white, half_white(), half_white()[:, :1], TARGET, **{"steps": 4, **options})
