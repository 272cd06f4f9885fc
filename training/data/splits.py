"""The splits of a data set: finding them, holding out a validation split, taking subsets.

Nothing here knows what the columns mean: every task's loader builds on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np

from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.folders import quoted
from antehoc_hf.training.data.layout import ROLES, role_of
from antehoc_hf.training.data.sources import Source


@dataclass(frozen=True, eq=False)
class Split:
    """A part of one split that remembers which rows of the original it holds, so that errors can name them."""

    name: str
    dataset: datasets.Dataset
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.dataset)

    def __str__(self) -> str:
        return self.name

    def select(self, positions: np.ndarray) -> Split:
        """The rows at these positions of this split, in this order."""
        if np.array_equal(positions, np.arange(len(self))):
            return self
        return Split(self.name, self.dataset.select(positions.tolist()), self.rows[positions])

    def without(self, positions: Sequence[int]) -> Split:
        """All rows but those at these positions."""
        return self.select(np.setdiff1d(np.arange(len(self)), np.asarray(positions, dtype=np.int64)))

    def where(self, position: int) -> str:
        """How to call one row in a message."""
        return f"Row {self.rows[position]} of split {self.name!r}"


def find_splits(source: Source, named: Mapping[str, str] | None = None) -> dict[str, Split]:
    """The splits for training, validation and test, by their usual names or those given.

    A data set with one split only is a training split, unless it is called validation or test.

    Args:
        source: all splits of a data set.
        named: "train", "validation", "test" → the split's name, where the user gives it.

    Returns:
        "train", "validation", "test" → split; without those that the data set lacks.

    Raises:
        DataError: a split named by the user that doesn't exist, no split with a usual name or several for the same
            purpose, an empty split, or a validation or test split which is the training split itself.
    """
    named = named or {}
    chosen = {role: _split_name(role, named.get(role), source) for role in ROLES}
    if not any(chosen.values()):
        only = list(source.splits)
        if len(only) != 1:
            raise DataError(
                f"No split of {source.name} has a usual name: name them ({quoted(only)}), such as --train_split "
                f"{only[0]}."
            )
        chosen["train"] = only[0]
    for role in ("validation", "test"):
        if chosen[role] is not None and chosen[role] == chosen["train"]:
            raise DataError(
                f"{role}_split={chosen[role]!r} is also the training split: leave it out to hold out a part of it."
            )
    found = {}
    for role, name in chosen.items():
        if name is None:
            continue
        dataset = source.splits[name]
        if len(dataset) == 0:
            raise DataError(f"Split {name!r} of {source.name} is empty.")
        found[role] = Split(name, dataset, np.arange(len(dataset)))
    return found


def hold_out(split: Split, fraction: float, seed: int, strata: Sequence[int] | None = None) -> tuple[Split, Split]:
    """Sets a part of a split aside, the same for the same seed.

    Args:
        split: n rows.
        fraction: part to set aside, in (0, 1): round(fraction · n) rows, at least one.
        seed: of the choice.
        strata: the class of each row: classes are then represented in proportion (to within one row), and a class
            never loses its last row, unless every class has but one.

    Returns:
        What remains, and what is set aside, each in the original order.

    Raises:
        DataError: fewer than two rows, or a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise DataError(f"validation_fraction={fraction} must lie between 0 and 1.")
    count = len(split)
    if count < 2:
        raise DataError(f"Split {split.name!r} has {count} row, too few to hold out a validation split.")
    size = min(max(1, round(fraction * count)), count - 1)
    generator = np.random.default_rng(seed)
    order = generator.permutation(count)
    taken = order[:size] if strata is None else _stratified(order, np.asarray(strata), size)
    taken = np.sort(taken if len(taken) else order[:size])
    return split.without(taken.tolist()), split.select(taken)


def take(split: Split, limit: int | None, seed: int, option: str = "max_samples") -> Split:
    """At most `limit` rows, chosen at random but always the same for a seed, in the original order; a smaller limit
    takes a subset of what a larger one takes.

    Raises:
        DataError: a limit below one.
    """
    if limit is None:
        return split
    if limit < 1:
        raise DataError(f"{option}={limit} must be at least 1.")
    if limit >= len(split):
        return split
    return split.select(np.sort(np.random.default_rng(seed).permutation(len(split))[:limit]))


def _stratified(order: np.ndarray, strata: np.ndarray, size: int) -> np.ndarray:
    """`size` positions of a random order, each stratum in proportion: whole parts first, largest remainders next."""
    classes, counts = np.unique(strata, return_counts=True)
    exact = counts * size / counts.sum()
    quota = np.floor(exact).astype(np.int64)
    remainder = np.where(counts > 1, exact - quota, -1.0)
    extra = np.argsort(-remainder, kind="stable")[: size - quota.sum()]
    quota[extra[remainder[extra] >= 0]] += 1
    quota = np.minimum(quota, counts - 1)
    shuffled = strata[order]
    return np.concatenate([order[shuffled == c][:n] for c, n in zip(classes, quota, strict=True)])


def _split_name(role: str, named: str | None, source: Source) -> str | None:
    if named is not None:
        if named not in source.splits:
            raise DataError(f"{source.name} has no split {named!r}: it has {quoted(source.splits)}.")
        return named
    exact = [name for name in source.splits if name.lower() in ROLES[role]]
    names = exact or [name for name in source.splits if role_of(name) == role]
    if len(names) > 1:
        raise DataError(
            f"Several splits of {source.name} may hold the {role} images ({quoted(names)}): say which with "
            f"--{role}_split {names[0]}."
        )
    return names[0] if names else None
