"""SENN's robustness term against Jacobians taken entry by entry."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from antehoc_hf.baselines.robustness import exact_directions, jacobian_gap, random_signs, robustness_penalty

K, CONCEPTS, PIXELS = 3, 4, 12


@pytest.fixture
def toy() -> Any:
    """h and θ of images of 3×2×2 as smooth functions without batch norm, in double precision."""
    torch.manual_seed(0)
    concepts = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, CONCEPTS)).double()
    relevances = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 8), nn.Tanh(), nn.Linear(8, CONCEPTS * K)).double()

    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h, self.theta = concepts, relevances

        def explain(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.h(x), self.theta(x).unflatten(1, (CONCEPTS, K))

        def f(self, x: Tensor, output: str) -> Tensor:
            h, theta = self.explain(x)
            logits = torch.einsum("bi,bic->bc", h, theta)
            return logits.log_softmax(1) if output == "log_softmax" else logits

    return Toy()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def whole_gap(toy: Any, image: Tensor, output: str) -> Tensor:
    """J_f - J_h θ by its definition, (K, 3·2·2)."""
    of_f = jacobian(lambda x: toy.f(x, output)[0], image).reshape(K, PIXELS)
    of_h = jacobian(lambda x: toy.explain(x)[0][0], image).reshape(CONCEPTS, PIXELS)
    return of_f - toy.explain(image)[1][0].T @ of_h


@pytest.mark.parametrize("output", ["logits", "log_softmax"])
def test_one_product_gives_the_difference_of_the_jacobians(toy: Any, image: Tensor, output: Any) -> None:
    x = image.clone().requires_grad_()
    gaps = [jacobian_gap(x, *toy.explain(x), row, output) for row in exact_directions(1, K, image)]
    found = torch.stack(gaps).reshape(K, PIXELS)
    torch.testing.assert_close(found, whole_gap(toy, image, output), rtol=0, atol=1e-12)


def test_for_logits_it_is_the_sum_of_concepts_times_the_jacobians_of_their_relevances(toy: Any, image: Tensor) -> None:
    of_theta = jacobian(lambda x: toy.explain(x)[1][0], image).reshape(CONCEPTS, K, PIXELS)
    summed = torch.einsum("i,icp->cp", toy.explain(image)[0][0], of_theta)
    torch.testing.assert_close(summed, whole_gap(toy, image, "logits"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("output", ["logits", "log_softmax"])
def test_over_all_signs_the_projected_penalty_is_the_exact_one_on_average(toy: Any, output: Any) -> None:
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    exact = robustness_penalty(x, *toy.explain(x), exact_directions(5, K, x), output)
    projected = [
        robustness_penalty(x, *toy.explain(x), [torch.tensor(signs, dtype=x.dtype).expand(5, K)], output)
        for signs in itertools.product([-1.0, 1.0], repeat=K)
    ]
    torch.testing.assert_close(torch.stack(projected).mean(), exact, rtol=1e-10, atol=0)
    assert torch.stack(projected).std() > 0, "every direction being the same would prove nothing"


def test_the_penalty_is_a_mean_over_images_or_the_norm_of_the_batch(toy: Any, image: Tensor) -> None:
    other = image.flip(-1)
    both = torch.cat([image, other]).requires_grad_()
    directions = exact_directions(2, K, both)
    squares = [whole_gap(toy, x, "logits").square().sum().item() for x in (image, other)]
    squared = robustness_penalty(both, *toy.explain(both), directions)
    norm = robustness_penalty(both, *toy.explain(both), directions, norm="frobenius")
    assert squared.item() == pytest.approx(sum(squares) / 2)
    assert norm.item() == pytest.approx(sum(squares) ** 0.5)


def test_the_penalty_can_be_learned_by_concepts_and_relevances(toy: Any) -> None:
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def penalty() -> Tensor:
        return robustness_penalty(x, *toy.explain(x), exact_directions(2, K, x))

    penalty().backward()
    for weight in (toy.h[1].weight, toy.theta[1].weight):
        step, slope = 1e-6, float(weight.grad[0, 0])
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[0, 0] += sign * step
            values.append(penalty().item())
            with torch.no_grad():
                weight[0, 0] -= sign * step
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
        assert slope != 0


def test_relevances_that_do_not_change_with_the_image_cost_nothing() -> None:
    x = torch.randn(2, 3, 2, 2, requires_grad=True)
    linear = nn.Linear(PIXELS, CONCEPTS)
    fixed = 0 * x.sum() + torch.randn(2, CONCEPTS, K)  # f is linear in x with exactly these relevances
    penalty = robustness_penalty(x, linear(x.flatten(1)), fixed, exact_directions(2, K, x), norm="frobenius")
    assert float(penalty.detach()) == 0
    penalty.backward()
    assert torch.isfinite(linear.weight.grad).all()


def test_random_signs_are_signs_of_every_image() -> None:
    (signs,) = random_signs(64, K, torch.zeros(1))
    assert signs.shape == (64, K)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert len(signs.unique(dim=0)) > 1
