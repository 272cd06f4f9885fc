"""Explanation methods as the report of maps calls them."""

from collections.abc import Callable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from antehoc_hf.explainers.base import Explainer
from antehoc_hf.explainers.network import ModelOptions
from antehoc_hf.explainers.registry import load_explainer

# Every report prints these rows by itself, and the model's own map first.
_PRINTED_ANYWAY = ("antehoc", "constant", "random", "center", "sobel")


def measured_explainers(
    names: Sequence[str], model: nn.Module, **options: Unpack[ModelOptions]
) -> dict[str, Callable[..., Tensor]]:
    """Explainers of a model for `evaluate_maps`.

    Args:
        names: of `EXPLAINERS`. The model's own map and the controls are left out: the reports print them anyway.
        model, options: see `load_explainer`.

    Returns:
        `dict`: name → `(pixel_values, target) -> maps`, where the target is classes, None for landmarks, or the labels
            of captions.

    Raises:
        ValueError: if there is no such method, or it cannot explain this model.
        ImportError: if the method's library is not installed.
    """
    loaded = {name: load_explainer(name, model, **options) for name in dict.fromkeys(names)}
    return {name: _as_measured(explainer) for name, explainer in loaded.items() if name not in _PRINTED_ANYWAY}


def _as_measured(explainer: Explainer) -> Callable[..., Tensor]:
    if explainer.network.kind in ("landmarks", "classes"):
        return explainer
    config = explainer.network.config

    def of_words(pixel_values: Tensor, labels: Tensor) -> Tensor:
        # Labels are what follows the start; explainers are asked about whole captions of ids.
        words = labels.masked_fill(labels < 0, config.pad_token_id)
        return explainer(pixel_values, torch.cat([torch.full_like(words[:, :1], config.bos_token_id), words], dim=1))

    return of_words
