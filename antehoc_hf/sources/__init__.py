"""Finished classifiers, wherever they come from: timm, the Hub, folders, files of weights, networks in memory."""

from antehoc_hf.sources.classifier import FinishedClassifier
from antehoc_hf.sources.read import read_classifier

__all__ = ["FinishedClassifier", "read_classifier"]
