"""The game of patches: how coalitions are drawn, what they see, and what a network learns from them."""

from itertools import combinations, permutations, product

import pytest
import torch
import torch.nn.functional as F

from antehoc_hf.evaluation import insertion_deletion
from antehoc_hf.modeling import ContributionMap, Targets
from antehoc_hf.modeling.map_head import with_total
from antehoc_hf.training.objectives import CoalitionObjective, TrainingStep
from antehoc_hf.training.objectives.losses import coalition_loss
from antehoc_hf.training.objectives.patches import (
    background_images,
    draw_coalitions,
    draw_partial_images,
    draw_sizes,
    kernel_sizes,
    shown_images,
)

BLACK = torch.tensor([-1.0, -2.0, -3.0]).view(1, 3, 1, 1)

TARGETS = Targets(torch.empty(0), torch.empty(0, dtype=torch.long))  # the network learns vectors of its own


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def play(images, worth, numbers, ranking=None, black=BLACK, **options):
    game = CoalitionObjective(**options)
    return game.play(images, (4, 4), lambda shown, _: worth(shown), black, numbers, ranking)


def draws_of(step, micro_batch=0, seed=0, process=0):
    """The random numbers of one micro-batch."""
    step = TrainingStep(None, None, None, step, micro_batch, micro_batches=2, seed=seed, process=process)
    return step.generator(0)


def test_shapley_kernel_of_four_patches():
    # 1/(1·3), 1/(2·2), 1/(3·1) = 4/12, 3/12, 4/12
    assert kernel_sizes(4).tolist() == pytest.approx([4 / 11, 3 / 11, 4 / 11])


def test_sizes_are_drawn_by_the_kernel():
    drawn = draw_sizes(20_000, 4, "shapley", generator())
    shares = [(drawn == size).double().mean().item() for size in range(5)]
    assert shares == pytest.approx([0, 4 / 11, 3 / 11, 4 / 11, 0], abs=0.01)


@pytest.mark.parametrize("sampling", ["shapley", "contiguous"])
def test_every_patch_is_drawn_as_often_and_no_coalition_is_trivial(sampling):
    sizes = draw_sizes(20_000, 24, sampling, generator())
    drawn = draw_coalitions(sizes, (4, 6), sampling, generator(1)).float()
    assert drawn.mean(dim=0).flatten().tolist() == pytest.approx([0.5] * 24, abs=0.02)
    assert torch.equal(drawn.flatten(1).sum(dim=1), sizes.float())
    assert sizes.min() == 1
    assert sizes.max() == 23


def test_neighbours_go_together_in_contiguous_coalitions_alone():
    def agreement(sampling):
        drawn = draw_coalitions(torch.full((2000,), 32), (8, 8), sampling, generator())
        return (drawn[:, :, 1:] == drawn[:, :, :-1]).float().mean().item()

    assert agreement("shapley") == pytest.approx(0.5, abs=0.03)
    assert agreement("contiguous") > 0.75


def test_ranked_coalitions_are_what_the_map_puts_first_give_or_take():
    ranking = torch.arange(64.0).view(1, 8, 8).expand(4000, -1, -1)
    sizes = torch.full((4000,), 16)
    drawn = draw_coalitions(sizes, (8, 8), "ranked", generator(), ranking).float()
    often = drawn.mean(dim=0).flatten()
    assert torch.equal(drawn.flatten(1).sum(dim=1), sizes.float())
    assert often[-8:].min() > 0.75  # the top of the ranking is nearly always there
    assert often[:32].max() < 0.1
    assert 0.2 < often[48] < 0.8  # on the edge it is a matter of luck: that is what is learned from
    # A map's scale says nothing, and one that says nothing leaves it to chance.
    assert torch.equal(drawn, draw_coalitions(sizes, (8, 8), "ranked", generator(), 1e-3 * ranking - 5).float())
    flat = draw_coalitions(sizes, (8, 8), "ranked", generator(), torch.full((4000, 8, 8), 0.3))
    assert torch.equal(flat, draw_coalitions(sizes, (8, 8), "contiguous", generator()))


def test_without_a_map_ranked_coalitions_are_contiguous():
    images = torch.rand(50, 3, 16, 16)
    ranked, contiguous = (
        draw_partial_images(images, (8, 8), name, "mixed", BLACK, generator())[0][0]
        for name in ("ranked", "contiguous")
    )
    assert torch.equal(ranked, contiguous)


def test_a_coalition_shows_its_patches_and_the_background_elsewhere():
    image, background = torch.ones(1, 3, 5, 6), torch.zeros(1, 3, 5, 6)
    shown = shown_images(image, torch.tensor([[[True, False, False], [False, False, True]]]), background)
    # Two rows of patches over five of pixels: the first has three of them.
    expected = torch.tensor([[1, 1, 0, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 1, 1]] * 2).float()
    assert torch.equal(shown, expected.expand(1, 3, 5, 6))


def test_backgrounds():
    images = torch.rand(2, 3, 32, 32, generator=generator())
    assert torch.equal(background_images(images, "black", BLACK)[1, :, 7, 9], BLACK.flatten())
    mean = background_images(images, "mean", BLACK)
    assert torch.allclose(mean[0, :, 3, 4], images[0].mean(dim=(1, 2)))
    # The blur is the one of the measures: fully deleted images are the same.
    blurred = background_images(images, "blur", BLACK)
    seen = []
    predict = lambda batch: seen.append(batch) or torch.zeros(len(batch), 2)  # noqa: E731
    insertion_deletion(predict, images, images[:, :1], torch.tensor([0, 1]), steps=2, baseline="blur")
    assert any(torch.allclose(image, blurred[0]) for image in torch.cat(seen))


def test_loss_by_hand():
    contributions = torch.tensor([[[[1.0, 2.0]], [[0.0, 5.0]]]])  # one image, two classes, patches side by side
    contrasts = torch.tensor([[[[1, -1]]]])
    gains = torch.tensor([[[0.0, -4.0]]])
    # The first patch has 1 − 2 = −1 and 0 − 5 = −5 ahead: errors −1 and −1.
    assert coalition_loss(contributions, contrasts, gains).item() == pytest.approx(2.0)


def test_pairs_of_one_size_by_the_kernel_give_shapley_values():
    """A game of four players with any values at all, every pair at its share: against the mean over all orders."""
    players = 4
    subsets = [frozenset(s) for n in range(players + 1) for s in combinations(range(players), n)]
    worth = dict(zip(subsets, torch.randn(len(subsets), generator=generator(), dtype=torch.float64), strict=True))
    orders = list(permutations(range(players)))
    truth = torch.zeros(players, dtype=torch.float64)
    for order in orders:
        for place, player in enumerate(order):
            truth[player] += (worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]) / len(orders)
    kernel = kernel_sizes(players)
    rows, gains = [], []
    for size in range(1, players):
        of_size = [s for s in subsets if len(s) == size]
        for first, second in product(of_size, of_size):
            share = (kernel[size - 1] / len(of_size) ** 2).sqrt()  # the loss squares it
            rows.append(share * torch.tensor([float(k in first) - float(k in second) for k in range(players)]))
            gains.append(share * (worth[first] - worth[second]))
    found = torch.linalg.lstsq(torch.stack(rows).double(), torch.stack(gains), driver="gelsd").solution
    total = worth[frozenset(range(players))] - worth[frozenset()]
    corrected = with_total(found.view(1, 1, 2, 2), total.view(1, 1)).flatten()
    assert corrected.tolist() == pytest.approx(truth.tolist())


def test_the_coalitions_of_a_pair_are_of_one_size():
    outcome = play(torch.rand(6, 3, 16, 16), lambda x: x.mean(dim=(2, 3)), generator(), coalitions_per_image=4)
    assert outcome.contrasts.shape == (2, 6, 4, 4)
    assert set(outcome.contrasts.flatten().tolist()) == {-1, 0, 1}
    assert outcome.contrasts.flatten(2).sum(dim=2).eq(0).all()


def test_contributions_are_corrected_alike_to_their_sum():
    corrected = with_total(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[2.0]]))
    assert corrected.flatten().tolist() == [-1.0, 0.0, 1.0, 2.0]


@pytest.mark.parametrize("sampling", ["shapley", "contiguous", "ranked"])
def test_a_linear_network_is_recovered(sampling):
    """A network that adds up brightness by place: the Shapley value of a patch is what it adds, wherever it is."""
    torch.manual_seed(0)
    places = torch.randn(2, 16)
    black = torch.zeros(1, 3, 1, 1)

    def judge(images):
        return F.avg_pool2d(images, 4).mean(dim=1).flatten(1) @ places.T

    options = {"sampling": sampling, "background": "black", "black": black}
    network = ContributionMap([16], num_targets=2, width=32, own_vectors=True, depth=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)

    def batch(seed):
        images = torch.rand(32, 3, 16, 16, generator=generator(seed))
        brightness = F.avg_pool2d(images, 4).mean(dim=1)
        features = torch.eye(16).view(1, 16, 4, 4) * brightness[:, None]  # each patch in a channel of its own
        return images, features, torch.einsum("bd,kd->bkd", brightness.flatten(1), places).unflatten(2, (4, 4))

    for step in range(400):
        images, features, _ = batch(step)
        contributions = network.contributions(features, TARGETS, of_all=True)
        ranking = contributions[:, 0].detach() if sampling == "ranked" else None
        outcome = play(images, judge, draws_of(step), ranking, **options)
        loss = coalition_loss(contributions, outcome.contrasts, outcome.gains)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, features, truth = batch(10_000)
    found = with_total(network.contributions(features, TARGETS, of_all=True), judge(images)).detach()
    error = (found - truth).square().mean().sqrt() / truth.square().mean().sqrt()
    assert error < 0.1


def test_draws_follow_from_seed_step_micro_batch_and_process():
    names = [{}, {"micro_batch": 1}, {"seed": 1}, {"process": 1}, {"step": 4}]
    images = torch.rand(4, 3, 16, 16)

    def drawn(name):
        torch.manual_seed(len(name))  # the global generator has no say
        return play(images, lambda batch: batch.mean(dim=(2, 3)), draws_of(**{"step": 3, **name})).contrasts

    first = [drawn(name) for name in names]
    assert all(torch.equal(one, drawn(name)) for one, name in zip(first, names, strict=True))
    assert all(not torch.equal(one, other) for one, other in combinations(first, 2))


def test_playing_takes_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    play(torch.rand(4, 3, 16, 16, generator=generator()), lambda x: x.mean(dim=(2, 3)), draws_of(0))
    assert torch.equal(torch.get_rng_state(), before)
