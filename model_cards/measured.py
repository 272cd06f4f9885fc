"""What an evaluation found later, added to the card of the same weights and data."""

import json
from collections.abc import Mapping
from pathlib import Path

from antehoc_hf.model_cards.card import replace_file, weights_digest, write_card
from antehoc_hf.model_cards.travel import FolderError, read_json

_RESULTS = "results.json"
_MEASURED = ("evaluated_on", "evaluated_images", "metrics", "maps", "stability", "sanity")


def check_measurable(folder: Path, data_name: str) -> None:
    """What must hold before anything is measured for a folder's card.

    Args:
        folder: of a trained model.
        data_name: of the data it is to be measured on, as given to `load_data`.

    Raises:
        FolderError: if it does not hold a trained model, its weights have changed since its results.json was
            written, or it was trained on other data.
    """
    if not (folder / "config.json").is_file():
        raise FolderError(f"{folder} holds no trained model whose card could take new measures.")
    results = read_json(folder / _RESULTS) or {}
    written_for = (results.get("training") or {}).get("weights_sha256")
    if written_for is not None and written_for != weights_digest(folder):
        raise FolderError(
            f"{folder / _RESULTS} was written for other weights than those in the same folder: delete it, or put the "
            "right weights back."
        )
    trained_on = (results.get("data") or {}).get("name")
    if trained_on is not None and Path(trained_on).name != Path(data_name).name:  # wherever they lie
        raise FolderError(
            f"{folder} was trained on {trained_on!r}, and its card is about those data: measures on {data_name!r} "
            "would be read as theirs. Leave update_card out."
        )


def add_measures(folder: Path, found: Mapping[str, object]) -> bool:
    """Puts measures into the results.json of a model's folder, where they replace earlier ones, and writes the card
    anew.

    Args:
        folder: of a trained model.
        found: what an evaluation wrote.

    Returns:
        `bool`: False if there is a card that a person wrote, which stays.
    """
    results = read_json(folder / _RESULTS) or {"model": found.get("model"), "task": found.get("task")}
    results |= {name: found[name] for name in _MEASURED if found.get(name) is not None}
    replace_file(folder / _RESULTS, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return write_card(folder)
