"""ROAD: imputation against a dense solve, and scores on a model whose answer is known by hand."""

import pytest
import torch
from helpers import half_white

from antehoc_hf.evaluation import road
from antehoc_hf.evaluation.imputation import linear_imputation, noisy_linear_imputation
from antehoc_hf.evaluation.maps import rank_pixels


def dense(image, missing):
    """The same system of one channel, written out entry by entry and solved by LU decomposition."""
    height, width = image.shape
    unknown = [(row, column) for row in range(height) for column in range(width) if missing[row, column]]
    matrix, right = torch.zeros(len(unknown), len(unknown)).double(), torch.zeros(len(unknown)).double()
    for line, (row, column) in enumerate(unknown):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                at = (row + down, column + across)
                if (down, across) == (0, 0) or not (0 <= at[0] < height and 0 <= at[1] < width):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                matrix[line, line] += weight
                if at in unknown:
                    matrix[line, unknown.index(at)] -= weight
                else:
                    right[line] += weight * image[at]
    filled = image.double().clone()
    for place, value in zip(unknown, torch.linalg.solve(matrix, right), strict=True):
        filled[place] = value
    return filled


def images(batch=1, side=12, seed=0):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def first(maps, count):
    """The `count` pixels of the largest values."""
    return (rank_pixels(maps) < count).view_as(maps)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["scattered", "corner"])
def test_imputation_solves_the_system(share, kind):
    pixels = images(2)
    maps = (
        images(2, seed=1)[:, :1] if kind == "scattered" else -torch.arange(144.0).view(1, 1, 12, 12).repeat(2, 1, 1, 1)
    )
    missing = first(maps, round(share * 144))
    filled = linear_imputation(pixels, missing)
    for image in range(2):
        for channel in range(3):
            expected = dense(pixels[image, channel], missing[image, 0])
            assert torch.allclose(filled[image, channel].double(), expected, atol=1e-4)
    assert torch.equal(filled[~missing.expand_as(filled)], pixels[~missing.expand_as(pixels)])


def test_smooth_images_are_filled_as_they_were():
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    plane = (2 * rows - columns).expand(1, 3, 16, 16).contiguous()
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:12, 3:11] = True
    assert torch.allclose(linear_imputation(plane, hole), plane, atol=1e-3)
    flat = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(linear_imputation(flat, hole), flat, atol=1e-6)
    assert torch.allclose(linear_imputation(flat + 1000, hole), flat + 1000, atol=1e-2)
    assert linear_imputation(torch.zeros(1, 3, 16, 16), hole).abs().max() == 0


def test_noise_is_seeded_and_only_in_the_hole():
    pixels, missing = images(3), first(images(3, seed=1)[:, :1], 70)
    noisy = noisy_linear_imputation(pixels, missing, noise=0.1, seed=4)
    difference = (noisy - linear_imputation(pixels, missing))[missing.expand_as(pixels)]
    assert float(difference.std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(noisy[~missing.expand_as(pixels)], pixels[~missing.expand_as(pixels)])
    assert torch.equal(noisy, noisy_linear_imputation(pixels, missing, noise=0.1, seed=4))
    last = noisy_linear_imputation(pixels[2:], missing[2:], noise=0.1, seed=4, first_index=2)
    assert torch.allclose(noisy[2:], last, atol=1e-5)


def left_half(image):
    """Probability of class 0: how much of the left half is exactly white."""
    share = (image[..., : image.shape[3] // 2] == 1).all(dim=1).float().mean(dim=(1, 2))
    return torch.stack([share, 1 - share], dim=1)


TARGET = torch.zeros(1, dtype=torch.long)


def test_hand_computed():
    pixels = half_white(side=8)
    scores = road(left_half, pixels, pixels[:, :1], TARGET, percentages=(25, 50, 75))
    # The white half is taken out first: half of it, all, all; and last: none, none, half of it.
    assert scores.most_relevant_first.tolist() == [[0.5, 0, 0]]
    assert scores.least_relevant_first.tolist() == [[1, 1, 0.5]]
    assert scores.combined.item() == pytest.approx((0.5 + 1 + 0.5) / 6)
    assert road(left_half, pixels, 1 - pixels[:, :1], TARGET, percentages=(25, 50, 75)).combined.item() < -0.3


@pytest.mark.parametrize("kind", ["constant", "random"])
def test_maps_that_explain_nothing_score_zero(kind):
    batch = 64
    maps = torch.ones(batch, 1, 8, 8) if kind == "constant" else torch.rand(batch, 1, 8, 8)
    scores = road(left_half, half_white(batch, side=8), maps, TARGET.expand(batch)).combined
    assert abs(float(scores.mean())) < 3 * float(scores.std()) / batch**0.5


def test_ties_are_broken_so_that_the_percentage_is_exact():
    """A threshold at the percentile, as others do it, takes out all of a binary map of 6 % of the image."""
    maps = torch.zeros(1, 1, 20, 20)
    maps[..., :4, :6] = 1
    elsewhere_kept = maps < torch.quantile(maps, 0.5)
    assert int(elsewhere_kept.sum()) == 0
    pixels, seen = images(1, 20), []

    def remember(versions):
        seen.append((versions != pixels).any(dim=1).flatten(1).sum(dim=1))
        return left_half(versions)

    road(remember, pixels, maps, TARGET, percentages=(5, 50, 90))
    assert torch.cat(seen).tolist() == [20, 200, 360, 20, 200, 360]


def test_every_image_of_every_batch_is_scored_alike():
    pixels, maps = images(5), images(5, seed=1)[:, :1].round()
    target = torch.tensor([0, 1, 0, 1, 0])

    def predict(versions):
        return torch.stack([versions.mean(dim=(1, 2, 3)), versions.amax(dim=(1, 2, 3))], dim=1)

    whole = road(predict, pixels, maps, target, seed=2)
    assert whole.combined.shape == (5,)
    parts = [
        road(predict, pixels[i : i + 1], maps[i : i + 1], target[i : i + 1], seed=2, first_index=i, chunk_size=3)
        for i in range(5)
    ]
    assert torch.allclose(whole.combined, torch.cat([part.combined for part in parts]), atol=1e-4)
    brighter = road(predict, pixels, 5 + 0.1 * maps.exp(), target, seed=2)
    assert torch.equal(whole.combined, brighter.combined)


def test_no_images_give_no_scores():
    assert road(left_half, half_white(0, side=8), half_white(0, side=8)[:, :1], TARGET[:0]).combined.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentages": (0, 50)}, "between 0 and 100"),
        ({"percentages": ()}, "one or more numbers"),
        ({"percentages": (0.1,)}, "none or all of the 64 pixels"),
        ({"noise": -1}, "noise=-1"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"maps": torch.rand(1, 1, 4, 4)}, "don't fit"),
    ],
)
def test_mistakes_end_in_one_sentence(options, message):
    maps = options.pop("maps", half_white(side=8)[:, :1])
    with pytest.raises(ValueError, match=message):
        road(left_half, half_white(side=8), maps, TARGET, **options)


def test_imputation_mistakes_end_in_one_sentence():
    hole = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    with pytest.raises(ValueError, match="At least one pixel"):
        linear_imputation(images(), hole)
    with pytest.raises(ValueError, match="must be bool"):
        linear_imputation(images(), hole.float())
    with pytest.raises(ValueError, match="don't fit"):
        linear_imputation(images(), hole[:, 0])
    with pytest.raises(ValueError, match="not finite"):
        linear_imputation(torch.full((1, 3, 12, 12), torch.inf), ~hole)
