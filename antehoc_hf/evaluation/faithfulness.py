"""How much of the prediction survives in the energy map: the measures of the ante-hoc paper and those of the
literature.

All are functions of two probabilities of one class, that of the image and that of the energy map. They reward bright
maps (a constant 0.9 beats Grad-CAM), so read them next to the controls, or on masks of equal area.

Sources: Guna R T, Benitez, Sikha, "Ante-Hoc Generation of Task-Agnostic Interpretation Maps", XAI4CV 2023, Sec. 4
(`drop_cond`, `inc_cond`, `win`); Chattopadhyay et al., "Grad-CAM++", WACV 2018, Sec. 4.1 (`avg_drop`, `inc_conf`).
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from antehoc_hf.evaluation.metric import Metric, register_metric

IncDenominator = Literal["energy", "image"]


def class_probability(logits: Tensor, target: Tensor, exclusive: bool = True) -> Tensor:
    """Probability of each image's target class.

    Args:
        logits (`Tensor`): (B, K).
        target (`Tensor`): (B,) int64 in 0 … K − 1.
        exclusive (`bool`): whether an image has one of the classes (softmax), or each of them or not (sigmoid).

    Returns:
        `Tensor`: (B,) float32 in [0, 1].

    Raises:
        ValueError: if the shapes don't fit or a target is not a class of the model.
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (B, K) and target (B,), but they are {tuple(logits.shape)} and {tuple(target.shape)}."
        )
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < logits.shape[1]:
        raise ValueError(
            f"Targets must be in 0 … {logits.shape[1] - 1}, the classes of the model, but they span "
            f"{int(target.min())} … {int(target.max())}."
        )
    return class_probabilities(logits, exclusive).gather(1, target[:, None]).squeeze(1)


def class_probabilities(logits: Tensor, exclusive: bool = True) -> Tensor:
    """Of all classes, (B, K) float32; see [`class_probability`]."""
    return logits.float().softmax(dim=1) if exclusive else logits.float().sigmoid()


def drop_terms(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """`100 · (p_image − p_energy) / p_image`, (B,), of the images that lost, NaN elsewhere: `drop_cond`'s terms."""
    lost = _lost(p_image, p_energy, tolerance)
    return torch.where(lost, 100 * (p_image - p_energy) / p_image, torch.nan)


def inc_terms(
    p_image: Tensor, p_energy: Tensor, denominator: IncDenominator = "energy", tolerance: float = 0.0
) -> Tensor:
    """`100 · (p_energy − p_image) / p_energy`, (B,), of the images that gained, NaN elsewhere: `inc_cond`'s terms."""
    if denominator not in ("energy", "image"):
        raise ValueError(f"denominator={denominator!r} must be 'energy' or 'image'.")
    gained = _gained(p_image, p_energy, tolerance)
    whole = p_energy if denominator == "energy" else p_image
    return torch.where(gained, 100 * (p_energy - p_image) / whole, torch.nan)


def win_terms(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """100 for each image that gained, else 0, (B,): `win` is their mean."""
    return 100.0 * _gained(p_image, p_energy, tolerance).to(p_image.dtype)


def avg_drop_terms(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """`100 · max(0, p_image − p_energy) / p_image` of every image, (B,): `avg_drop` is their mean."""
    lost = _lost(p_image, p_energy, tolerance)
    # An image that lost has p_image > 0; dividing the others by 1 avoids 0 / 0.
    return torch.where(lost, 100 * (p_image - p_energy) / torch.where(lost, p_image, 1.0), 0.0)


def drop_cond(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """The paper's Drop: `100 / |D| · Σ_D (p_image − p_energy) / p_image` over the images D that lost probability.

    As printed the two symbols are swapped: that form is negative and unbounded, and the paper's tables lie in
    [0, 100]. It is a mean over the images that lost, not over all, hence not the literature's Average Drop:
    `avg_drop = drop_cond · share of images that lost`.

    Args:
        p_image, p_energy (`Tensor`): (B,) probabilities of the target class, of the image and of the energy map.
        tolerance (`float`): relative differences up to this are rounding and count as none.

    Returns:
        `Tensor`: percent, in (0, 100]; lower is better. NaN where no image lost: there is no mean of nothing.

    Raises:
        ValueError: if the shapes differ, or the values are not finite probabilities.
    """
    return drop_terms(p_image, p_energy, tolerance).nanmean()


def inc_cond(
    p_image: Tensor, p_energy: Tensor, denominator: IncDenominator = "energy", tolerance: float = 0.0
) -> Tensor:
    """The paper's Inc: `100 / |I| · Σ_I (p_energy − p_image) / p_energy` over the images I that gained probability.

    A size, not a count: the literature's Increase in Confidence is `inc_conf`.

    Args:
        p_image, p_energy, tolerance: see `drop_cond`.
        denominator (`str`): `"energy"` (the paper, its symbols swapped back; at most 100) or `"image"` (unbounded).

    Returns:
        `Tensor`: percent; higher is better. NaN where no image gained.

    Raises:
        ValueError: see `drop_cond`; or if the denominator has no such name.
    """
    return inc_terms(p_image, p_energy, denominator, tolerance).nanmean()


def win(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """The paper's Win: share of all images with `p_energy > p_image`, percent; higher is better.

    A map of ones never wins. It is the literature's Increase in Confidence (`inc_conf`), not the pairwise Win of
    Grad-CAM++. Arguments and errors are those of `drop_cond`; NaN for no image at all.
    """
    return win_terms(p_image, p_energy, tolerance).mean()


def avg_drop(p_image: Tensor, p_energy: Tensor, tolerance: float = 0.0) -> Tensor:
    """Average Drop of the literature: `100 / N · Σ max(0, p_image − p_energy) / p_image` over all images, percent in
    [0, 100]; lower is better. Arguments and errors are those of `drop_cond`; NaN for no image at all.
    """
    return avg_drop_terms(p_image, p_energy, tolerance).mean()


inc_conf = win
"""Increase in Confidence of the literature: `win` under its usual name."""


def _lost(p_image: Tensor, p_energy: Tensor, tolerance: float) -> Tensor:
    _check(p_image, p_energy)
    return p_image - p_energy > tolerance * p_image


def _gained(p_image: Tensor, p_energy: Tensor, tolerance: float) -> Tensor:
    _check(p_image, p_energy)
    return p_energy - p_image > tolerance * p_energy


def _check(p_image: Tensor, p_energy: Tensor) -> None:
    if p_image.ndim != 1 or p_image.shape != p_energy.shape:
        raise ValueError(
            f"p_image and p_energy must both be (B,), but they are {tuple(p_image.shape)} and {tuple(p_energy.shape)}."
        )
    for name, values in (("p_image", p_image), ("p_energy", p_energy)):
        broken = int((~torch.isfinite(values)).sum())
        if broken:
            raise ValueError(
                f"{broken} of {len(values)} values of {name} are not finite: count and remove them first."
            )
        if values.numel() and not (float(values.min()) >= -1e-6 and float(values.max()) <= 1 + 1e-6):
            raise ValueError(
                f"{name} must be probabilities in [0, 1], but spans {float(values.min()):.3g} … "
                f"{float(values.max()):.3g}: take the softmax of the logits first (class_probability)."
            )


_metric = partial(Metric, decimals=1, rewards_brightness=True)
_FORMS, _FAIR = ("", "binarised"), ("", "equal_area")
register_metric(
    _metric(
        "drop_cond", drop_terms, "Drop", "lower", "The paper's Drop, percent, over images that lost.", columns=_FORMS
    ),
    _metric(
        "inc_cond", inc_terms, "Inc", "higher", "The paper's Inc, percent, over images that gained.", columns=_FORMS
    ),
    _metric("win", win_terms, "Win", "higher", "Share of images that gained, percent."),
    _metric(
        "avg_drop", avg_drop_terms, "Avg. Drop", "lower", "Average Drop, percent, over all images.", columns=_FAIR
    ),
    _metric("inc_conf", win_terms, "Increase in Confidence", "higher", "`win`, under its usual name.", columns=()),
    _metric(
        "accuracy",
        lambda correct: correct.double(),
        "accuracy",
        "higher",
        "Share of masked images classified correctly.",
        scale=100.0,
        columns=_FAIR,
    ),
)
