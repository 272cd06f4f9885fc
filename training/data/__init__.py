"""Data sets by name or folder: found, checked, split, and made into batches of tensors."""

from antehoc_hf.training.data.image_data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.loading import load_image_data

__all__ = ["ImageData", "ImageDataset", "load_image_data", "sample"]
