"""Weights in files, however they were saved: their names, containers and prefixes."""

import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# Where training programs keep the weights; averaged ones first, since they are those that are evaluated.
_CONTAINERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "network", "weights", "module", "params"),
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".th")


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dictionary from a file: safetensors, or a pickle read without running any code of it.

    Raises:
        ValueError: if it holds something else than weights.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise OSError(f"{path} is not a file of weights: it does not exist.")
    if path.stat().st_size == 0:
        raise OSError(f"{path} is empty: it holds no weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of archives that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise OSError(f"The weights in {path} are cut short or damaged ({error}).") from error
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} holds more than weights, and reading it would run code from the file. Save the network's "
            "state_dict() alone, best with safetensors.torch.save_file."
        ) from None
    except Exception as error:  # whatever bytes that are no pickle make torch's reader do
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path} is a program of TorchScript: save the state_dict() of the network that it was made from."
            ) from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise OSError(
            f"The weights in {path} are cut short or damaged, or it is no file of weights ({reason})."
        ) from error
    found = _state_dict(content)
    if found is None:
        raise ValueError(f"{path} holds no weights: a state dictionary, name → tensor, was expected.")
    return found


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """The state dictionary within nested containers."""
    if not isinstance(content, Mapping):
        return None
    for name in _CONTAINERS:
        inner = _state_dict(content[name]) if isinstance(content.get(name), Mapping) else None
        if inner:
            return inner
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return tensors or None


def without_prefix(weights: Mapping[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """The weights under the names that a network has, where wrappers have put something before them (`module.`,
    `_orig_mod.`, `model.`, `timm_model.`, several of them).

    Args:
        weights: as saved.
        expected: names of the network's own state.

    Returns:
        `dict[str, Tensor]`: those under the prefix that fits best; all of them, unchanged, if none fits.
    """
    names = set(expected)
    best, most = "", sum(name in names for name in weights)
    for prefix in _prefixes(weights, names):
        fitting = sum(name.removeprefix(prefix) in names for name in weights if name.startswith(prefix))
        if fitting > most:
            best, most = prefix, fitting
    if not best:
        return dict(weights)
    return {name.removeprefix(best): value for name, value in weights.items() if name.startswith(best)}


def _prefixes(weights: Mapping[str, Tensor], names: set[str]) -> set[str]:
    """What stands before the name of any of the first few expected tensors."""
    found = set()
    for name in weights:
        parts = name.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in names:
                found.add(".".join(parts[:cut]) + ".")
    return found


def classes_of(weights: Mapping[str, Tensor], classifier: str | tuple[str, ...] | None) -> int | None:
    """How many classes the classifier of that name has; None where the weights hold none."""
    for name in (classifier,) if isinstance(classifier, str) else classifier or ():
        for part in ("bias", "weight"):
            if f"{name}.{part}" in weights:
                return len(weights[f"{name}.{part}"])
    return None
