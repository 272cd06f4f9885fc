"""SENN's robustness term: how far the prediction's gradient is from the one its relevances stand for."""

from typing import Literal

import torch
from torch import Tensor

Output = Literal["logits", "log_softmax"]


def jacobian_gap(
    pixel_values: Tensor, concepts: Tensor, relevances: Tensor, direction: Tensor, output: Output = "logits"
) -> Tensor:
    """Σ_c r_c (J_x f_c - Σ_i θ_ic J_x h_i), for f = Σ_i θ_i h_i or its log-softmax: how the prediction changes with
    the image beyond what fixed relevances account for (Alvarez-Melis and Jaakkola 2018, Eq. 3 and section 3).

    One vector-Jacobian product gives it: by the product rule J_x f - J_x h θ = Σ_i h_i J_x θ_i, so that h_i r_c is
    the cotangent of θ_ic, and f itself is never differentiated. It can be differentiated once more, by h as by θ.

    Args:
        pixel_values (`Tensor`): (B, 3, H, W), with gradient; the other two were computed from it.
        concepts (`Tensor`): h, (B, k).
        relevances (`Tensor`): θ, (B, k, K).
        direction (`Tensor`): r, (B, K).
        output (`str`): f is `"logits"` or `"log_softmax"`.

    Returns:
        `Tensor`: (B, 3, H, W).
    """
    of_relevances = concepts.unsqueeze(2) * direction.unsqueeze(1)
    outputs, cotangents = [relevances], [of_relevances]
    if output == "log_softmax":
        # With s = softmax(f) and R = Σ_c r_c, the log-softmax takes R·s off r on the way to f; what θ accounts for
        # is taken off with r itself, and R·s remains of it.
        share = (concepts.unsqueeze(1) @ relevances).squeeze(1).softmax(dim=1) * direction.sum(dim=1, keepdim=True)
        cotangents = [concepts.unsqueeze(2) * (direction - share).unsqueeze(1)]
        outputs.append(concepts)
        cotangents.append(-(relevances @ share.unsqueeze(2)).squeeze(2))
    return torch.autograd.grad(outputs, pixel_values, cotangents, create_graph=True)[0]


def lacks_derivative(value: Tensor) -> bool:
    """Whether something on the way to `value` cannot be differentiated, which PyTorch tells only as it goes back."""
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith(("NotImplemented", "Error")):  # PyTorch's names of what stands in for a derivative
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False


def exact_directions(images: int, classes: int, like: Tensor) -> list[Tensor]:
    """The K unit vectors of the classes, each (B, K): together they give the whole Jacobian."""
    return [row.expand(images, classes) for row in torch.eye(classes, device=like.device, dtype=like.dtype)]


def random_signs(images: int, classes: int, like: Tensor) -> list[Tensor]:
    """One (B, K) of random signs, for which E‖Jᵀr‖² = ‖J‖² (Frobenius).

    Each image has its own: batch norm lets the images of a batch reach one another's gradient, and between signs that
    know nothing of each other this comes to nothing on average but for terms of the order 1/B.
    """
    signs = torch.randint(0, 2, (images, classes), device=like.device)
    return [(2 * signs - 1).to(like.dtype)]


def robustness_penalty(
    pixel_values: Tensor,
    concepts: Tensor,
    relevances: Tensor,
    directions: list[Tensor],
    output: Output = "logits",
    norm: Literal["squared", "frobenius"] = "squared",
) -> Tensor:
    """The size of [`jacobian_gap`] over all directions.

    Args:
        pixel_values, concepts, relevances, output: as there.
        directions (`list[Tensor]`): from [`exact_directions`] or [`random_signs`].
        norm (`str`): `"squared"`: the squared Frobenius norm of an image's gap, a mean over the images.
            `"frobenius"`: the norm of the whole batch's, not squared; on random signs it is too small on average.

    Returns:
        `Tensor`: a scalar.
    """
    gaps = [jacobian_gap(pixel_values, concepts, relevances, direction, output) for direction in directions]
    total = torch.stack([gap.square().sum() for gap in gaps]).sum()
    if norm == "squared":
        return total / len(pixel_values)
    # The root's slope at 0 is infinite; a gap of zero has nothing to learn.
    return torch.where(total > 0, total, 1.0).sqrt() * (total > 0)
