"""Model cards, and the way to the Hub: what a run found out becomes a card, and a folder becomes a repository."""

from antehoc_hf.model_cards.card import is_ours, read_card, weights_digest, write_card
from antehoc_hf.model_cards.collect import collect, default_name
from antehoc_hf.model_cards.data import CardData, Facts
from antehoc_hf.model_cards.errors import PushError, explain
from antehoc_hf.model_cards.measured import add_measures, check_measurable
from antehoc_hf.model_cards.publish import Pushed, create_repository, push_folder
from antehoc_hf.model_cards.render import render
from antehoc_hf.model_cards.travel import FolderError, travelling_files

__all__ = [
    "CardData",
    "Facts",
    "FolderError",
    "PushError",
    "Pushed",
    "add_measures",
    "check_measurable",
    "collect",
    "create_repository",
    "default_name",
    "explain",
    "is_ours",
    "push_folder",
    "read_card",
    "render",
    "travelling_files",
    "weights_digest",
    "write_card",
]
