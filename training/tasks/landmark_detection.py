"""Landmark detection: the points of an object, and what they were found by."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import Dataset
from transformers import EvalPrediction

from antehoc_hf.evaluation.landmarks import NORMALIZERS, landmark_metrics, nme
from antehoc_hf.modeling import AnteHocForLandmarkDetection, AnteHocImageProcessor, AnteHocLandmarkConfig
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.errors import DataError
from antehoc_hf.training.data.keypoints import find_format
from antehoc_hf.training.data.landmark_groups import LandmarkScheme, points_of_group, scheme_of
from antehoc_hf.training.data.landmarks import LandmarkTargets
from antehoc_hf.training.data.masks import WithMasks
from antehoc_hf.training.data.targets import ReadTargets
from antehoc_hf.training.runs.maps import MapChoice
from antehoc_hf.training.runs.options import LandmarkArguments, ModelArguments
from antehoc_hf.training.runs.results import FIGURE_FILE
from antehoc_hf.training.tasks.base import MeasuredMaps, MeasureOptions, Panel, Task, TrainerParts, measured_maps
from antehoc_hf.visualization import Caption, denormalise, photo_parts
from antehoc_hf.visualization.landmarks import figure_of_landmarks, landmark_panel

_SHOWN = 8
_MASK_PART = "mask"  # how the evidence of a mask column is called in the report


class LandmarkDetection(Task[LandmarkTargets, AnteHocForLandmarkDetection]):
    """Two coordinates for each point."""

    name = "landmark-detection"
    arguments = LandmarkArguments
    model_class = AnteHocForLandmarkDetection
    default_augmentation = "none"  # a mirrored image needs to know which points swap

    def read_targets(self, model: AnteHocForLandmarkDetection | None = None) -> ReadTargets[LandmarkTargets]:
        """The points of the group; with a model those it finds."""
        options = self.options

        def read(dataset: datasets.Dataset, image_column: str, source: str) -> LandmarkTargets:
            stored = find_format(
                dataset,
                image_column,
                options.keypoints_column,
                options.keypoints_order,
                options.keypoints_unit,
                source,
            )
            scheme = scheme_of(stored.count, source, options.keypoint_names, options.keypoint_flip)
            group = options.landmark_group
            points = points_of_group(scheme, group) if model is None else _points_of(model.config, scheme, source)
            upright = options.keypoints_order == "auto"
            return LandmarkTargets(stored, image_column, scheme, group, points, expect_upright=upright)

        return read

    def config_options(self, data: ImageData[LandmarkTargets]) -> dict[str, object]:
        """The points: how many, their names, mirror images and the parts they outline."""
        targets = data.targets
        return {
            "num_landmarks": len(targets.points),
            "landmark_names": targets.names,
            "landmark_flip": targets.flip,
            "landmark_parts": targets.parts or None,
            "landmark_loss": self.options.landmark_loss,
        }

    def build_model(
        self,
        model: ModelArguments,
        config: Mapping[str, object],
        map_choice: MapChoice,
        data: ImageData[LandmarkTargets],
    ) -> AnteHocForLandmarkDetection:
        """A new model; where its last layer has a bias, it starts by finding the mean points in every image."""
        built = super().build_model(model, config, map_choice, data)
        head = built.backbone.get_classifier()
        bias = getattr(head, "bias", None)
        dataset = data.train
        if isinstance(bias, Tensor) and bias.shape == (2 * built.num_landmarks,) and dataset is not None:
            options = {} if model.crop_pct is None else {"crop_pct": model.crop_pct}
            size = built.config.image_size
            processor = AnteHocImageProcessor.from_backbone(built.config.backbone, image_size=size, **options)
            with torch.no_grad():
                bias.copy_(data.targets.mean_points(dataset, processor).flatten())
                head.weight.zero_()
        return built

    def trainer_arguments(self) -> dict[str, Any]:
        """The normalizer goes to the metrics with the labels."""
        return {"label_names": ["labels", "normalizer"]}

    def metric_names(self, data: ImageData[LandmarkTargets]) -> set[str]:
        """Normalised mean errors, and the curve of them."""
        point = torch.zeros(1, 1, 2)
        return {*super().metric_names(data), *landmark_metrics(point, point, torch.ones(1, len(NORMALIZERS), 2))}

    def trainer_parts(self, data: ImageData[LandmarkTargets]) -> TrainerParts:
        """Normalised mean errors, and the curve of them."""
        return {"compute_metrics": metrics}

    def describe(self, data: ImageData[LandmarkTargets]) -> dict[str, object]:
        """The group and its points."""
        targets = data.targets
        return {"landmark_group": targets.group, "num_landmarks": len(targets.points)}

    def summary(self, data: ImageData[LandmarkTargets]) -> str:
        """How many points of which group."""
        count = len(data.targets.points)
        return f"{count} point{'s' if count > 1 else ''}: {data.targets.group}"

    def panel(self, model: AnteHocForLandmarkDetection, batch: Mapping[str, Tensor]) -> Panel:
        """Image, points, map and energy map."""
        config, pixel_values = model.config, batch["pixel_values"]
        outputs = model(pixel_values=pixel_values.to(model.dtype))
        energy = model.energy_map(pixel_values, outputs.interpretation_map)

        def draw(title: str) -> Figure:
            mean, std = config.image_mean, config.image_std
            landmarks = outputs.landmarks.float().cpu()
            return landmark_panel(
                denormalise(pixel_values, mean, std),
                landmarks,
                outputs.interpretation_map.cpu(),
                denormalise(energy, mean, std),
                _captions(landmarks, batch["labels"].cpu(), batch["normalizer"].cpu()),
                labels=batch["labels"].cpu(),
                degenerate=outputs.degenerate.cpu(),
                title=title,
                columns=2 if len(pixel_values) > 4 else 1,
            )

        return draw

    def measure(
        self,
        model: AnteHocForLandmarkDetection,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        options: MeasureOptions,
    ) -> MeasuredMaps:
        """What the maps leave of the points, and whether they lie on the parts."""
        if options.count < 1:
            return MeasuredMaps()
        targets: Any = images.targets
        encode = targets.encoder(processor, None, part_masks=True)
        dataset: Any = ImageDataset(images.split, images.image_column, targets, encode)
        parts = list(targets.scheme.parts)
        if options.mask_column is not None:
            dataset = _WithEvidence(WithMasks(dataset, options.mask_column, processor))
            parts.append(_MASK_PART)
        explainers = {**maps_of_parts(model, targets.scheme), **options.explainers}
        return measured_maps(model, images, options, dataset=dataset, parts=parts, explainers=explainers)

    def save_figures(
        self,
        model: AnteHocForLandmarkDetection,
        images: ImageDataset,
        processor: AnteHocImageProcessor,
        folder: Path,
        warning: str = "",
    ) -> list[str]:
        """Points and maps of a few images."""
        positions = sample(images, _SHOWN)
        items = [images[position] for position in positions]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        with torch.no_grad():
            found = model(batch["pixel_values"].to(device=model.device, dtype=model.dtype)).landmarks.float().cpu()
        figure_of_landmarks(
            model,
            batch["pixel_values"],
            batch["labels"],
            captions=_captions(found, batch["labels"], batch["normalizer"]),
            path=folder / FIGURE_FILE,
            title=warning or None,
            columns=2,
            pictures=photo_parts(images.photos(positions), processor),
        )
        return [FIGURE_FILE]


def maps_of_parts(model: AnteHocForLandmarkDetection, scheme: LandmarkScheme) -> dict[str, Callable[..., Tensor]]:
    """The model's map of each part that it finds all of, as the report of maps calls them; none if it has one map."""
    known = model.config.landmark_parts or {}
    found: dict[str, Callable[..., Tensor]] = {}
    for part, pieces in scheme.parts.items():
        if model.map_head.per_target and all(piece in known for piece in pieces):
            found[f"antehoc, {part}"] = partial(_map_of_part, model, list(pieces))
    return found


def _map_of_part(model: AnteHocForLandmarkDetection, pieces: list[str], pixel_values: Tensor, target: None) -> Tensor:
    explained = model.interpretation(pixel_values, pieces).interpretation_map  # type: ignore[arg-type]
    assert explained is not None
    return explained


def metrics(prediction: EvalPrediction) -> dict[str, float]:
    """For the Trainer's `compute_metrics`: see [`antehoc_hf.evaluation.landmarks.landmark_metrics`]."""
    found = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels, normalizer = tuple(prediction.label_ids)  # in the order of `label_names`
    return landmark_metrics(*(torch.from_numpy(np.asarray(values)) for values in (found, labels, normalizer)))


class _WithEvidence(Dataset):
    """The mask of a data set's true evidence as one more part."""

    def __init__(self, images: WithMasks) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        item = self.images[position]
        mask = item.pop("mask") > 0.5
        return {**item, "part_masks": torch.cat([item["part_masks"], mask])}


def _points_of(config: AnteHocLandmarkConfig, scheme: LandmarkScheme, source: str) -> list[int]:
    """Raises a DataError if the data set lacks a point that the model finds."""
    wanted = list(config.landmark_names or [])
    if wanted and set(wanted) <= set(scheme.names):
        return [scheme.names.index(name) for name in wanted]
    if not wanted and config.num_landmarks == len(scheme.names):
        return list(range(config.num_landmarks))
    missing = next((name for name in wanted if name not in scheme.names), f"{config.num_landmarks} points")
    raise DataError(
        f"The model finds {missing!r}, which is not among the {len(scheme.names)} points of {source}: give "
        "keypoint_names if they only lack their names."
    )


def _captions(found: Tensor, labels: Tensor, normalizer: Tensor) -> list[Caption]:
    """The error of each image, by the first length that is known."""
    errors = torch.stack([nme(found, labels, normalizer[:, index]) for index in range(len(NORMALIZERS))], dim=1)
    first = [next((value for value in row if value == value), None) for row in errors.tolist()]
    return [Caption("" if value is None else f"error {100 * value:.1f} %") for value in first]
