"""Explainers leave the model alone: other threads may explain, run, train, copy and pickle it meanwhile."""

import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from antehoc_hf.explainers import load_explainer
from antehoc_hf.explainers.replica import replica

QUICK = {
    "antehoc": {},
    "grad-cam": {},
    "grad-cam++": {},
    "score-cam": {},
    "integrated-grad-cam": {"steps": 2},
    "integrated-gradients": {"steps": 2},
    "sise": {},
    "ada-sise": {},
}


def images(count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def at_once(jobs: list[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
    """What the jobs give in four threads; the first error is raised."""
    with ThreadPoolExecutor(4) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


@pytest.mark.parametrize("shared", [True, False])
def test_maps_in_threads_are_those_of_one_thread(network: nn.Module, shared: bool) -> None:
    one = load_explainer("grad-cam", network)
    expected = [one(images(seed=seed), seed % 4) for seed in range(40)]

    def job(seed: int) -> torch.Tensor:
        explainer = one if shared else load_explainer("grad-cam", network)
        return explainer(images(seed=seed), seed % 4)

    found = at_once([lambda seed=seed: job(seed) for seed in range(40)])
    assert all(torch.equal(map_, other) for map_, other in zip(found, expected, strict=True))


def test_every_method_beside_every_other_and_beside_the_model_itself(ours: nn.Module) -> None:
    ours.eval()
    explainers = {name: load_explainer(name, ours, **options) for name, options in QUICK.items()}
    expected = {name: explainer(images()) for name, explainer in explainers.items()}
    with torch.no_grad():
        plain = ours(images())
    jobs: list[Callable[[], torch.Tensor]] = []
    for _ in range(3):
        for explainer in explainers.values():
            jobs.append(lambda explainer=explainer: explainer(images()))
            jobs.append(lambda: ours(images()).logits.detach())
    found = at_once(jobs)
    for index, name in enumerate(list(QUICK) * 3):
        assert torch.allclose(found[2 * index], expected[name], atol=1e-5), name
        assert torch.allclose(found[2 * index + 1], plain.logits, atol=1e-6)


DRAWING: dict[str, dict[str, int]] = {
    "kernel-shap": {"grid": 2, "samples": 8},
    "shapley-sampling": {"grid": 2, "samples": 2},
    "rise": {"masks": 4},
}


@pytest.mark.parametrize("method", DRAWING)
def test_what_is_drawn_in_a_thread_is_what_is_drawn_alone(network: nn.Module, method: str) -> None:
    """The seed's numbers, though the generator of a process is one for all threads."""
    explainer = load_explainer(method, network, **DRAWING[method])
    expected = explainer(images(), 1)
    state = torch.get_rng_state()
    found = at_once([lambda: explainer(images(), 1)] * 12)
    assert all(torch.allclose(map_, expected, atol=1e-6) for map_ in found)
    assert torch.equal(torch.get_rng_state(), state)


def test_training_goes_on_beside_an_explainer(network: nn.Module) -> None:
    """The modes and gradients of a network in training are those of its own thread."""
    trained = copy.deepcopy(network).train()
    explainer = load_explainer("integrated-gradients", trained, steps=2)

    def step() -> torch.Tensor:
        assert all(module.training for module in trained.modules())
        assert all(parameter.requires_grad for parameter in trained.parameters())
        gradients = torch.autograd.grad(trained(images(4)).sum(), list(trained.parameters()))
        return torch.stack([gradient.abs().sum() for gradient in gradients])

    found = at_once([job for _ in range(10) for job in (step, lambda: explainer(images()))])
    assert all(bool((gradients > 0).any()) for gradients in found[::2])
    assert all(parameter.grad is None for parameter in trained.parameters())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_made_meanwhile_hold_no_hooks(network: nn.Module, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    explainer = load_explainer("sise", network)
    copies: list[nn.Module] = []

    def make() -> torch.Tensor:
        copies.append(duplicate(network))
        return torch.zeros(1)

    at_once([job for _ in range(9) for job in (make, lambda: explainer(images()))])
    with torch.no_grad():
        expected = network(images())
    for made in copies:
        assert all(not module._forward_hooks and not module._forward_pre_hooks for module in made.modules())
        with torch.no_grad():
            assert torch.equal(made(images()), expected)


def test_a_replica_shares_weights_and_nothing_else(network: nn.Module) -> None:
    other = replica(network.train())
    network.eval()
    assert [name for name, _ in other.named_modules()] == [name for name, _ in network.named_modules()]
    for (name, weight), mine in zip(network.named_parameters(), other.parameters(), strict=True):
        assert weight.data_ptr() == mine.data_ptr(), name
        assert not mine.requires_grad
    assert not any(module.training for module in other.modules())
    assert {id(module) for module in other.modules()}.isdisjoint(id(module) for module in network.modules())


def test_a_replica_follows_references_that_are_not_parts() -> None:
    class Odd(nn.Module):
        """Holds its layer in a list, calls it through a bound method, and ties two weights."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.hidden = [nn.Dropout(0.9)]
            self.run = self.first.forward

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.hidden[0](self.run(x)))

    model = Odd()
    other = replica(model)
    assert other.run.__self__ is other.first
    assert other.first.weight is other.second.weight
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(other(x), model.second(model.first(x)))  # no dropout
    assert model.hidden[0].training
