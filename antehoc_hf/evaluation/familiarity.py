"""Whether a picture is like those that a model was trained on: how far its features lie from theirs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from transformers.utils import cached_file

FILE = "familiarity.safetensors"  # beside the weights, and small: 68 numbers a channel
_MOST_IMAGES = 400
_BATCH = 32
_QUANTILE = 0.99
_LEAST_SCALE = 0.01  # of the mean one: a channel that is nearly constant would decide alone
_DIRECTIONS = 32


class Rows(Protocol):
    """Images by their number, each with its `pixel_values`, (3, H, W)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Familiarity:
    """What the features of familiar pictures are like. Features are means and standard deviations, over the positions,
    of every channel that the map head reads.

    Attributes:
        mean, scale (`Tensor`): (C,), over training images; features are standardised by these.
        directions (`Tensor`): (R, C), the principal ones, each divided by the standard deviation along it.
        limit (`float`): the distance that 99 of 100 held-out images stay within.
    """

    mean: Tensor
    scale: Tensor
    directions: Tensor
    limit: float = 1.0

    @classmethod
    def of(cls, model: Any, train: Rows, held_out: Rows) -> Familiarity:
        """Calibrates, on at most 400 images of each.

        Args:
            model: one of ours, in evaluation mode.
            train, held_out: rows with `pixel_values`, (3, H, W); no row of one is in the other.
        """
        features = _all_features(model, train)
        mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        scale = scale.clamp_min(_LEAST_SCALE * float(scale.mean()) + 1e-12)
        _, singular, directions = torch.linalg.svd((features - mean) / scale, full_matrices=False)
        count = min(_DIRECTIONS, max(len(features) // 4, 1))
        deviations = (singular / len(features) ** 0.5).clamp_min(1e-6)
        found = cls(mean, scale, (directions[:count] / deviations[:count, None]).contiguous())
        distances = found.distance(_all_features(model, held_out)).sort().values
        # Of n + 1 images that come from the same world, the new one is the farthest of all in one of n + 1 cases.
        position = min(math.ceil(_QUANTILE * (len(distances) + 1)), len(distances)) - 1
        return replace(found, limit=float(distances[position]))

    @classmethod
    def load(cls, name: str | Path) -> Familiarity | None:
        """That of a folder or a repository on the Hub; None if it has none.

        Raises:
            ValueError: if its file is damaged.
        """
        path = cached_file(
            str(name),
            FILE,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            return None
        try:
            tensors = load_file(path)
            found = cls(tensors["mean"], tensors["scale"], tensors["directions"], float(tensors["limit"]))
            found.distance(found.mean[None])
        except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise _damaged(name, error) from error
        if not all(values.isfinite().all() for values in tensors.values()) or found.limit <= 0:
            raise _damaged(name, "numbers that cannot be")
        return found

    def save(self, folder: str | Path) -> None:
        """Into a model's folder."""
        tensors = {**vars(self), "limit": torch.tensor(self.limit)}
        (Path(folder) / FILE).write_bytes(save(tensors))

    def distance(self, features: Tensor) -> Tensor:
        """(B, C) → (B,): Mahalanobis distances along the principal directions, in units of the root of R."""
        along = (features - self.mean) / self.scale @ self.directions.T
        return along.square().mean(dim=1).sqrt()

    def times_the_limit(self, model: Any, pixel_values: Tensor) -> float:
        """How far one picture lies from the training images, in units of `limit`: above 1 it is unlike them.

        Args:
            model: the calibrated one.
            pixel_values (`Tensor`): (1, 3, H, W), normalised.
        """
        return float(self.distance(channel_statistics(model, pixel_values))) / self.limit


def _damaged(name: str | Path, reason: object) -> ValueError:
    said = " ".join(str(reason).split())[:100]
    return ValueError(
        f"{FILE} of {name}, which says what images the model knows, is damaged ({said}): delete it, or fetch it anew."
    )


@torch.no_grad()
def channel_statistics(model: Any, pixel_values: Tensor) -> Tensor:
    """(B, 3, H, W) → (B, C) float32 on the CPU: mean and standard deviation of each channel of each tap."""
    pixel_values = pixel_values.to(device=model.device, dtype=model.dtype)
    _, _, taps = model._run_backbone(pixel_values, lambda: model.backbone(pixel_values), hidden_states=True)
    found = [torch.std_mean(tap.float(), dim=(2, 3), correction=0) for tap in taps]
    return torch.cat([values for pair in found for values in pair], dim=1).cpu()


def _all_features(model: Any, rows: Rows) -> Tensor:
    """Of rows spread over all of them."""
    chosen = torch.linspace(0, len(rows) - 1, min(len(rows), _MOST_IMAGES)).long().unique().tolist()
    batches = [chosen[begin : begin + _BATCH] for begin in range(0, len(chosen), _BATCH)]
    return torch.cat(
        [channel_statistics(model, torch.stack([rows[i]["pixel_values"] for i in batch])) for batch in batches]
    )
