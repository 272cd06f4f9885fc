"""Random numbers: a second pass that draws none, and data loading that repeats itself after a resume."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info


class RandomState(TypedDict):
    """Of the generators of Python, NumPy (its name, its 624 keys, …) and torch (CPU)."""

    python: tuple[object, ...]
    numpy: tuple[str, torch.Tensor, int, int, float]
    torch: torch.Tensor


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside from torch's generators (CPU and `device`) does not show afterwards.

    Cheap: a few kilobytes of host memory, no waiting for the device.
    """
    on_cpu = torch.get_rng_state()
    on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(on_cpu)
        if on_device is not None:
            torch.cuda.set_rng_state(on_device, device)


def get_random_state() -> RandomState:
    """State of the generators that augmentations draw from: Python's, NumPy's and torch's (CPU), safe to unpickle."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: RandomState) -> None:
    """Restores what [`get_random_state`] returned."""
    name, keys, position, has_gauss, gauss = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])


class ReplayableDataset(Dataset[object]):
    """A data set that knows from which random state its last batch was drawn, and can draw it again.

    Data loading runs one batch ahead of training: when a checkpoint is written, the next batch is already augmented,
    with random numbers from before the checkpoint's. Resuming from the checkpoint's random state alone would augment
    it otherwise. So the state from before that batch is saved too, and a resumed run draws its first batch from
    it and everything after from the checkpoint's own state, exactly as the uninterrupted run did.

    Workers have random states of their own, which nothing saves: there the data set does nothing.

    Args:
        dataset: any map-style data set.
    """

    def __init__(self, dataset: Dataset[object]) -> None:
        self.dataset = dataset
        self.before_last_batch: RandomState | None = None
        self._planned: list[Callable[[], None]] = []
        self.has_replayed = False  # since the last call of `replay`, and until that of `finish_replay`

    def replay(self, first: RandomState, then: Callable[[], None]) -> None:
        """Draws the next batch from the state `first` and, before the one after it, calls `then`."""
        self._planned = [lambda: set_random_state(first), then]

    def finish_replay(self) -> None:
        """To be called when loading has run ahead as far as it will: the epoch's last batch has none after it."""
        while self._planned:
            self._planned.pop(0)()
        self.has_replayed = False

    def forget_replay(self) -> None:
        """Draws every batch from whatever the random state is."""
        self._planned = []

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> object:
        return self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[object]:
        if get_worker_info() is None:
            if self._planned:
                self._planned.pop(0)()
                self.has_replayed = True
            self.before_last_batch = get_random_state()
        together = getattr(self.dataset, "__getitems__", None)
        return together(indices) if together else [self.dataset[index] for index in indices]

    def __getattr__(self, name: str) -> object:
        if name == "dataset":  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)
