"""Data sets by name or folder: found, checked, split, and made into batches of tensors."""

from antehoc_hf.training.data.loading import (
    ImageData,
    ImageDataset,
    TransformedData,
    load_data,
    load_image_data,
    sample,
)

__all__ = ["ImageData", "ImageDataset", "TransformedData", "load_data", "load_image_data", "sample"]
