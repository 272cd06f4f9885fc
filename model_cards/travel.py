"""What of a trained model's folder goes to the Hub, and whether it is whole."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CARD_FILE = "README.md"
WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
# Never anything else: a folder also holds checkpoints, logs, and pickled arguments in which a token may be.
_FILES = (
    CARD_FILE,
    *("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "tokenizer.model"),
    *("predictions.png", "words-1.png", "words-2.png", "words-3.png", ".eval_results/antehoc.yaml"),
    "familiarity.safetensors",
)
_IMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+import\b", re.MULTILINE)


class FolderError(OSError):
    """The folder is not a trained model, or a torn one."""


def travelling_files(folder: Path) -> list[str]:
    """Names of the files that are pushed: weights, configurations, tokenizer, the code that `auto_map` names with all
    it imports, figures and card.

    Args:
        folder: of a trained model.

    Raises:
        FolderError: if it is not a model of ours, or something is missing, cut short or a link to elsewhere.
    """
    config = read_config(folder)
    names = [name for name in _FILES if (folder / name).is_file()]
    names += [*_weights(folder), *_code(folder, config)]
    check_links(folder, names)
    return names


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Raises a FolderError if a file is a link out of the folder: something else would be made public. In the Hub's
    cache all files are links, to the blobs next to the folder.
    """
    root = folder.resolve()
    cache = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    for name in names:
        place = (root / name).resolve()
        if not place.is_relative_to(root) and not place.is_relative_to(cache):
            raise FolderError(f"{name} in {folder} leads out of it, to {place}: put the file itself there.")


def read_config(folder: Path) -> dict[str, object]:
    """Raises a FolderError if there is no config.json of one of our models."""
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder: name the output folder of a training.")
    config = read_json(folder / "config.json")
    if config is None:
        raise FolderError(
            f"{folder} holds no trained model (there is no config.json): name a training's output folder."
        )
    if not str(config.get("model_type", "")).startswith("antehoc"):
        raise FolderError(f"{folder} holds a model of type {config.get('model_type')!r}, which is none of antehoc_hf.")
    return config


def read_json(path: Path) -> dict[str, Any] | None:
    """An object in a file; None if there is no file.

    Raises:
        FolderError: if it holds something else.
    """
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise FolderError(f"{path} is damaged (no JSON object): save the model again.")
    return value


def _weights(folder: Path) -> list[str]:
    names = [WEIGHTS_FILE]
    index = read_json(folder / INDEX_FILE)
    if index is not None:
        names = [INDEX_FILE, *sorted(set(index.get("weight_map", {}).values()))]
    for name in names:
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise FolderError(f"{folder} lacks its weights ({name}): save the model again.")
        if path.suffix == ".safetensors":
            _check_whole(path)
    return names


def _check_whole(path: Path) -> None:
    """A safetensors file starts with the length of a JSON header in 8 bytes; that one says where each tensor ends."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length < size else None
        entries = {} if header is None else header
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError):
        ends = None
    if not ends or 8 + length + max(ends) != size:
        raise FolderError(f"{path} is cut short or damaged: save the model again, or take it from a checkpoint.")


def _code(folder: Path, config: dict[str, Any]) -> list[str]:
    """The modules of `auto_map`, and those they import; none for a folder without code."""
    named = [value for entry in (config.get("auto_map") or {}).values() for value in _listed(entry)]
    waiting = [value.split(".")[0] for value in named if "--" not in value]
    found: list[str] = []
    while waiting:
        name = f"{waiting.pop()}.py"
        if name in found or not re.fullmatch(r"\w+\.py", name):
            continue
        if not (folder / name).is_file():
            raise FolderError(f"{folder} lacks {name}, part of the model's code: save the model again.")
        found.append(name)
        waiting += _IMPORT.findall((folder / name).read_text(encoding="utf-8"))
    return sorted(found)


def _listed(entry: object) -> list[str]:
    return [str(item) for item in (entry if isinstance(entry, list | tuple) else [entry]) if item]
