"""Drop, Inc, Win and the literature's Average Drop, against numbers worked out by hand."""

import pytest
import timm
import torch

from antehoc_hf.evaluation import avg_drop, drop_cond, inc_cond, win
from antehoc_hf.evaluation.faithfulness import class_probability, inc_conf
from antehoc_hf.evaluation.networks import black_pixel

# lost 50 %, lost 25 %, gained (0.2 → 0.8), unchanged
P_IMAGE = torch.tensor([0.8, 0.4, 0.2, 0.5])
P_ENERGY = torch.tensor([0.4, 0.3, 0.8, 0.5])


def test_hand_computed():
    assert float(drop_cond(P_IMAGE, P_ENERGY)) == pytest.approx((50 + 25) / 2)
    assert float(inc_cond(P_IMAGE, P_ENERGY)) == pytest.approx(75)
    assert float(inc_cond(P_IMAGE, P_ENERGY, denominator="image")) == pytest.approx(300)
    assert float(win(P_IMAGE, P_ENERGY)) == pytest.approx(25)
    assert float(inc_conf(P_IMAGE, P_ENERGY)) == pytest.approx(25)
    assert float(avg_drop(P_IMAGE, P_ENERGY)) == pytest.approx((50 + 25) / 4)


def test_average_drop_is_drop_times_the_share_that_lost():
    generator = torch.Generator().manual_seed(3)
    p_image, p_energy = torch.rand(2, 500, generator=generator)
    share = (p_energy < p_image).float().mean()
    assert float(avg_drop(p_image, p_energy)) == pytest.approx(float(drop_cond(p_image, p_energy) * share), rel=1e-5)


def test_map_of_ones_neither_wins_nor_drops():
    assert float(win(P_IMAGE, P_IMAGE)) == 0
    assert float(avg_drop(P_IMAGE, P_IMAGE)) == 0
    assert drop_cond(P_IMAGE, P_IMAGE).isnan()  # no image lost: a mean of nothing
    assert inc_cond(P_IMAGE, P_IMAGE).isnan()


def test_rounding_is_no_win():
    nearly = P_IMAGE * (1 + 1e-6)
    assert float(win(P_IMAGE, nearly)) == 100
    assert float(win(P_IMAGE, nearly, tolerance=1e-5)) == 0
    assert float(avg_drop(nearly, P_IMAGE, tolerance=1e-5)) == 0


def test_probability_zero_is_no_division_by_zero():
    p_image, p_energy = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.5])
    assert float(avg_drop(p_image, p_energy)) == 0
    assert float(inc_cond(p_image, p_energy)) == 100
    assert float(win(p_image, p_energy)) == 50


@pytest.mark.parametrize("measure", [drop_cond, inc_cond, win, avg_drop, inc_conf])
def test_mistakes_end_in_one_sentence(measure):
    with pytest.raises(ValueError, match="1 of 4 values of p_energy are not finite"):
        measure(P_IMAGE, torch.tensor([0.1, torch.nan, 0.2, 0.3]))
    with pytest.raises(ValueError, match="take the softmax of the logits first"):
        measure(torch.tensor([3.0, -2.0]), torch.tensor([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"must both be \(B,\)"):
        measure(P_IMAGE, P_ENERGY[:2])


def test_class_probability():
    logits = torch.tensor([[0.0, 0.0], [torch.log(torch.tensor(3.0)), 0.0]])
    assert class_probability(logits, torch.tensor([1, 0])).tolist() == pytest.approx([0.5, 0.75])
    with pytest.raises(ValueError, match="span 0 … 2"):
        class_probability(logits, torch.tensor([0, 2]))


def test_black_is_that_of_the_network_whatever_it_is_wrapped_in() -> None:
    network = timm.create_model("test_resnet", num_classes=3).eval()  # mean and deviation 0.5
    for model in (network, torch.nn.DataParallel(network), torch.compile(network)):
        assert black_pixel(model).flatten().tolist() == [-1.0, -1.0, -1.0]
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    with pytest.raises(ValueError, match="not known how Sequential normalises its images"):
        black_pixel(plain)
    assert black_pixel(plain, [0.25] * 3, [0.5] * 3).flatten().tolist() == [-0.5, -0.5, -0.5]
