"""Noise, the paper's CD and CI, rank correlation and sensitivity of maps."""

import numpy as np
import pytest
import torch

from antehoc_hf.evaluation.rank_correlation import average_ranks
from antehoc_hf.evaluation.stability import drop_pairs, inc_pairs, map_similarity, max_sensitivity, salt_and_pepper

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)


def test_salt_and_pepper():
    pixels = torch.zeros(2, 3, 20, 20)
    noisy = salt_and_pepper(pixels, 0.25, MEAN, STD)
    black, white = (torch.tensor([(v - m) / s for m, s in zip(MEAN, STD, strict=True)]) for v in (0, 1))
    for image in noisy:
        colours = image.flatten(1).T
        assert int((colours == white).all(dim=1).sum()) == 50
        assert int((colours == black).all(dim=1).sum()) == 50
        assert int((colours == 0).all(dim=1).sum()) == 300
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy[1:], salt_and_pepper(pixels[1:], 0.25, MEAN, STD, first_index=1))
    assert not torch.equal(noisy, salt_and_pepper(pixels, 0.25, MEAN, STD, seed=1))
    assert pixels.abs().max() == 0


def test_more_noise_holds_the_less():
    pixels = torch.zeros(1, 3, 20, 20)
    little, much = (salt_and_pepper(pixels, share, MEAN, STD) for share in (0.1, 0.5))
    hit = little != 0
    assert torch.equal(little[hit], much[hit])
    assert torch.equal(salt_and_pepper(pixels, 0, MEAN, STD), pixels)
    assert (salt_and_pepper(pixels, 1, MEAN, STD) != 0).all()


def test_changes_of_drop_and_inc_by_hand():
    p_image, p_energy = torch.tensor([0.8, 0.8, 0.5]), torch.tensor([0.4, 0.2, 1.0])
    p_noisy, p_noisy_energy = torch.tensor([0.5, 0.5, 0.4]), torch.tensor([0.4, 0.6, 0.5])
    # Drop: mean(50, 75) → 20. Inc: 50 → mean(100 · 0.1/0.6, 20).
    given = (p_image, p_energy, p_noisy, p_noisy_energy)
    assert drop_pairs(*given).nanmean(dim=0).tolist() == pytest.approx([62.5, 20])
    assert inc_pairs(*given).nanmean(dim=0).tolist() == pytest.approx([50, 110 / 6])
    assert inc_pairs(*given, "image").nanmean(dim=0).tolist() == pytest.approx([100, 22.5])
    # No image that lost: nothing to compare.
    assert drop_pairs(p_image, p_energy, p_noisy, p_noisy)[:, 1].isnan().all()


def test_average_ranks():
    assert average_ranks(torch.tensor([[3.0, 1.0, 3.0, 2.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0]])).tolist() == [
        [3, 0, 3, 1, 3],
        [2, 2, 2, 2, 2],
    ]


def test_similarity_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 1, 9, 7, generator=generator)
    others = (4 * torch.rand(3, 1, 9, 7, generator=generator) + 2 * maps).round()  # many equal values
    expected = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(maps, others, strict=True)]
    assert map_similarity(maps, others).tolist() == pytest.approx(np.asarray(expected).tolist(), abs=1e-6)


def test_similarity_of_transformed_and_constant_maps():
    maps = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flat = torch.full_like(maps, 0.3)
    assert map_similarity(maps, maps.exp() * 7).item() == pytest.approx(1)
    assert map_similarity(maps, -maps).item() == pytest.approx(-1)
    assert map_similarity(maps, flat).item() == 0
    assert map_similarity(flat, maps).item() == 0
    assert map_similarity(flat, 2 * flat).item() == 1


def explain(images):
    return (images[:, :1] ** 2 + images[:, 1:2].abs()).detach()


def test_sensitivity_agrees_with_captum():
    metrics = pytest.importorskip("captum.metrics")
    pixels, seen = torch.randn(3, 3, 6, 6), []

    def remember(images):
        seen.append(images)
        return explain(images)

    ours = max_sensitivity(remember, pixels, radius=0.1, draws=4)
    deltas = torch.stack([images - pixels for images in seen[1:]], dim=1).flatten(0, 1)
    assert deltas.shape == (12, 3, 6, 6)
    assert 0.09 < float(deltas.abs().max()) <= 0.1001

    def for_captum(images):  # which hands over, and expects, a tuple the first time
        return (explain(images[0]),) if isinstance(images, tuple) else explain(images)

    options = {"perturb_func": lambda images: images + deltas, "n_perturb_samples": 4}
    theirs = metrics.sensitivity_max(for_captum, pixels, **options)
    assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-5)
    assert (ours > 0).all()


def test_sensitivity_of_degenerate_maps():
    pixels = torch.zeros(2, 3, 4, 4)
    assert max_sensitivity(lambda images: torch.zeros(2, 1, 4, 4), pixels).tolist() == [0, 0]
    assert max_sensitivity(lambda images: torch.ones(2, 1, 4, 4), pixels).tolist() == [0, 0]
    # From nothing to something: no relative change. (Captum gives the absolute one, on another scale.)
    assert max_sensitivity(explain, pixels).isnan().all()


def test_sensitivity_does_not_depend_on_batches():
    pixels = torch.randn(3, 3, 6, 6)
    whole = max_sensitivity(explain, pixels, seed=3)
    assert torch.equal(whole[2:], max_sensitivity(explain, pixels[2:], seed=3, first_index=2))


def test_mistakes_end_in_one_sentence():
    pixels, maps = torch.zeros(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    with pytest.raises(ValueError, match="share=2"):
        salt_and_pepper(pixels, 2, MEAN, STD)
    with pytest.raises(ValueError, match="must be 3 numbers"):
        salt_and_pepper(pixels, 0.1, (0.5,), STD)
    with pytest.raises(ValueError, match="as many noisy images"):
        drop_pairs(torch.ones(2), torch.ones(2), torch.ones(1), torch.ones(1))
    with pytest.raises(ValueError, match="one shape"):
        map_similarity(maps, torch.rand(1, 1, 2, 2))
    with pytest.raises(ValueError, match="radius=0"):
        max_sensitivity(explain, pixels, radius=0)
    with pytest.raises(ValueError, match="draws=0"):
        max_sensitivity(explain, pixels, draws=0)
