"""Masks of the true evidence that some data sets have."""

import datasets
from torch import Tensor
from torch.utils.data import Dataset

from antehoc_hf.modeling import AnteHocImageProcessor
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.image_data import ImageData, ImageDataset
from antehoc_hf.training.data.images import decode_image, raw_images
from antehoc_hf.training.data.targets import TargetSpace


class WithMasks(Dataset):
    """Adds `mask` (1, H, W): the evidence a data set knows, seen through the same resizing and cropping."""

    def __init__(self, images: ImageDataset, column: str, processor: AnteHocImageProcessor) -> None:
        self.images = images
        masks = images.split.dataset.with_format(None).select_columns([column])
        self.masks = raw_images(masks, column) if isinstance(masks.features[column], datasets.Image) else masks
        self.column = column
        self.processor = AnteHocImageProcessor(
            image_size=list(processor.image_size),
            image_mean=[0.0, 0.0, 0.0],
            image_std=[1.0, 1.0, 1.0],
            interpolation="nearest",
            crop_pct=processor.crop_pct,
            crop_mode=processor.crop_mode,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        where = f"The mask of {self.images.split.where(position)}"
        mask = decode_image(self.masks[position][self.column], where)
        pixels = self.processor(mask, return_tensors="pt")["pixel_values"][0, :1]
        return {**self.images[position], "mask": (pixels > 0.5).float()}


def check_mask_column(data: ImageData[TargetSpace], mask_column: str | None) -> None:
    """Raises a DataError if a split that may be evaluated has no such column."""
    for split in data.splits.values():
        columns = split.dataset.column_names
        if mask_column is not None and mask_column not in columns:
            raise DataError(
                f"mask_column={mask_column!r} is not a column of {data.name}, split {split.name!r} "
                f"(columns: {', '.join(columns)})."
            )
