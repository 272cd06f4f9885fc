"""The card in a model's folder: made from what lies next to it, and never written over a person's own."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from antehoc_hf.model_cards.collect import collect
from antehoc_hf.model_cards.data import CardData, Facts
from antehoc_hf.model_cards.metadata import EVAL_RESULTS_FILE, eval_results_file
from antehoc_hf.model_cards.render import MARKER, render_card
from antehoc_hf.model_cards.travel import CARD_FILE, WEIGHTS_FILE, read_config, read_json

logger = logging.getLogger(__name__)

FACTS_FILE = "card_facts.json"
_FIGURES = ("predictions.png",)
# Sentences of the cards that transformers writes by itself: no person's work is lost with them.
_GENERATED = (
    "This model card has been automatically generated.",
    "This model card has been generated automatically according to the information the Trainer had access to.",
)


def write_card(
    folder: Path, facts: Facts | None = None, repo_id: str | None = None, results: Mapping[str, object] | None = None
) -> bool:
    """Writes README.md from config.json, results.json and preprocessor_config.json next to it; and what the Hub wants
    to know of results, if the user named their task there.

    Args:
        folder: of a trained model.
        facts: what a person stated; kept in card_facts.json. What is not given here is taken from there.
        repo_id: name on the Hub.
        results: instead of results.json, while a model is still being trained.

    Returns:
        `bool`: False if there is a card that a person wrote, which stays.

    Raises:
        FolderError: if the folder holds no model of ours.
    """
    known = _remembered(folder, facts)
    path = folder / CARD_FILE
    if path.is_file() and not is_ours(path.read_text(encoding="utf-8", errors="replace")):
        return False
    card = read_card(folder, known, repo_id, results)
    replace_file(path, render_card(card))
    entries = eval_results_file(card)
    if entries is not None:
        replace_file(folder / EVAL_RESULTS_FILE, entries)
    return True


def read_card(
    folder: Path, facts: Facts | None = None, repo_id: str | None = None, results: Mapping[str, object] | None = None
) -> CardData:
    """What the files of a folder tell.

    Raises:
        FolderError: if the folder holds no model of ours.
    """
    found = results if results is not None else _results_of_these_weights(folder)
    return collect(
        read_config(folder),
        found,
        read_json(folder / "preprocessor_config.json"),
        facts,
        tuple(name for name in _FIGURES if found and (folder / name).is_file()),
        repo_id,
    )


def is_ours(text: str) -> bool:
    """Whether a card was written by a program, ours or transformers', and not by a person."""
    return MARKER in text or any(sentence in text for sentence in _GENERATED)


def weights_digest(folder: Path) -> str | None:
    """SHA-256 of the weights; None for weights in several files."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _results_of_these_weights(folder: Path) -> dict[str, Any] | None:
    """results.json, unless it was measured on other weights than those that lie here now."""
    results = read_json(folder / "results.json")
    measured = ((results or {}).get("training") or {}).get("weights_sha256")
    if results is not None and measured is not None and measured != weights_digest(folder):
        logger.warning(f"The card leaves out {folder / 'results.json'}: it was measured on other weights than these.")
        return None
    return results


def _remembered(folder: Path, facts: Facts | None) -> Facts:
    """The facts given now, before those of earlier."""
    path = folder / FACTS_FILE
    names = [field.name for field in fields(Facts)]
    known = {name: value for name, value in (read_json(path) or {}).items() if name in names and value is not None}
    earlier = Facts(**{name: str(value) for name, value in known.items()})
    given = {name: value for name, value in asdict(facts).items() if value is not None} if facts else {}
    stated = replace(earlier, **given)
    if stated != earlier:
        replace_file(path, json.dumps(asdict(stated), indent=1, ensure_ascii=False) + "\n")
    return stated


def replace_file(path: Path, content: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        unfinished.write_text(content, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
