"""Model cards, and the way to the Hub: what a run found out becomes a card, and a folder becomes a repository."""

from antehoc_hf.model_cards.card import read_card, write_card
from antehoc_hf.model_cards.data import Facts
from antehoc_hf.model_cards.errors import PushError
from antehoc_hf.model_cards.publish import push_folder
from antehoc_hf.model_cards.travel import FolderError

__all__ = ["Facts", "FolderError", "PushError", "push_folder", "read_card", "write_card"]
