"""What classifiers, landmark models and captioners make of images, and of what a map leaves of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.evaluation.captions import caption_probability
from antehoc_hf.evaluation.faithfulness import class_probabilities, class_probability
from antehoc_hf.evaluation.insertion_deletion import insertion_deletion
from antehoc_hf.evaluation.landmarks import NORMALIZERS, nme
from antehoc_hf.evaluation.metric import Metric, register_metric
from antehoc_hf.evaluation.networks import black_pixel, is_ante_hoc
from antehoc_hf.evaluation.road import road
from antehoc_hf.evaluation.scorer import Batch, MapForm, Masked, Scorer, masked_probability, require
from antehoc_hf.evaluation.settings import EvaluationSettings
from antehoc_hf.modeling.configuration_captions import IGNORED
from antehoc_hf.passes import in_parts

_FORM_HEADINGS = {"pixel-mean": "{}", "pixel-blur": "{}, to blur", "patch-mean": "{}, patches",
                  "patch-blur": "{}, patches to blur"}  # fmt: skip


class ClassificationScorer(Scorer):
    """The probability of one class: of the label, or of the model's prediction. Of several labels an image it is the
    likeliest one.

    Args:
        model (`nn.Module`): one of our classifiers, a network that gives scores (B, K), or any
            `…ForImageClassification` of transformers.
        image_mean, image_std (*optional*): the normalisation of the images, which says what black is; None: what the
            model's configuration or timm's says.
        network (*optional*): what gives scores (B, K) of images in the model's place: the same network, run faster.

    Raises:
        ValueError: if it does not classify images, or its normalisation is not known.
    """

    uses = (
        *("target", "correct_only", "threshold", "area", "areas", "inc_denominator", "tolerance"),
        *("insertion_deletion_images", "insertion_deletion", "steps", "patches", "road_images", "chunk_size"),
        *("seed", "level", "resamples"),
    )

    def __init__(
        self,
        model: nn.Module,
        settings: EvaluationSettings,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        network: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(settings)
        self._model: Any = model
        self.explains_itself = is_ante_hoc(model)
        self._network = network
        config = getattr(model, "config", None)
        problem = getattr(config, "problem_type", None)
        self._num_labels = getattr(config, "num_labels", None) or getattr(model, "num_classes", None)
        self._exclusive = problem != "multi_label_classification"
        if problem == "regression" or (self._exclusive and getattr(config, "num_labels", 2) < 2):
            raise ValueError(
                "Maps are measured with a classifier, of one of several classes or of several labels an image, but "
                f"this model has problem_type {problem!r} and {self._num_labels} outputs."
            )
        first = next(model.parameters(), torch.zeros(()))
        self.device, self.dtype = first.device, first.dtype
        self._black = black_pixel(model, image_mean, image_std)

    def see(self, batch: Mapping[str, Tensor], first_index: int) -> Batch:
        """Of `pixel_values`, `labels` (B,), or (B, K) of 0 and 1 where an image has several, and `mask` (B, 1, H, W)
        where localisation is measured.
        """
        require(batch, "pixel_values", "labels")
        labels = self._labels(batch)
        pixel_values = batch["pixel_values"].to(device=self.device, dtype=self.dtype)
        outputs = self._model(pixel_values=pixel_values) if self.explains_itself else None
        # From where those of masked images come: what differs by rounding alone is no gain.
        logits = self._logits(pixel_values) if outputs is None or self._network else outputs.logits
        predicted = logits.argmax(dim=1)
        target = predicted if self.settings.target == "prediction" else _likeliest(logits, labels)
        p_image = class_probability(logits, target, self._exclusive).double().cpu()
        valid = torch.isfinite(p_image)
        accuracy = 100.0 * (_holds(labels, predicted).cpu() & valid)  # what is not finite is not right
        included = valid & (accuracy > 0) if self.settings.correct_only else valid
        if labels.ndim == 2:  # an image without labels has no right prediction, and none to watch
            nothing = ~labels.any(dim=1).cpu()
            accuracy = accuracy.masked_fill(nothing, torch.nan)
            included = included & ~(nothing & (self.settings.target == "label"))
        mask = batch.get("mask")
        return Batch(
            pixel_values,
            first_index,
            target,
            valid,
            included=included,
            scores={"accuracy": accuracy},
            maps=None if outputs is None else outputs.interpretation_map,
            degenerate=None if outputs is None else outputs.degenerate,
            arrays={"p_image": p_image, "target": target, "labels": labels, "predict": self._probabilities},
            regions={} if mask is None else {"": mask.to(self.device)},
        )

    def masked(self, batch: Batch, mask: Tensor) -> Masked:
        """`p_energy` and `correct`."""
        if self.explains_itself:
            energy = self._model.energy_map(batch.pixel_values, mask)
        else:
            black = self._black.to(batch.pixel_values)
            energy = black + (batch.pixel_values - black) * mask.to(batch.pixel_values.dtype)
        logits = self._logits(energy)
        probability = class_probability(logits, batch.arrays["target"], self._exclusive)
        found = masked_probability(probability, self.settings)
        correct = _holds(batch.arrays["labels"], logits.argmax(dim=1)).cpu() & found.finite
        return Masked({**found.arrays, "correct": correct}, found.finite, found.options)

    def ranked(self, batch: Batch, maps: Tensor) -> list[MapForm]:
        """Insertion and deletion in each form, and ROAD, on the first images of the data set."""
        settings, views = self.settings, []
        for form in settings.insertion_deletion if settings.insertion_deletion_images else ():
            unit, baseline = form.split("-")
            patch_size = 1 if unit == "pixel" else settings.patch_size_of(maps.shape[-2:])
            curves = insertion_deletion(
                *self._first(batch, maps, settings.insertion_deletion_images),
                steps=settings.steps,
                patch_size=patch_size,
                baseline=baseline,
                seed=settings.seed,
                first_index=batch.first_index,
                chunk_size=settings.chunk_size,
            )
            # The plain names are those of the first form.
            name = "{}" if form == settings.insertion_deletion[0] else f"{{}}_{unit}_{baseline}"
            heading, finite = _FORM_HEADINGS[form], torch.isfinite(curves.difference)
            views.append(MapForm(form, name, heading, {"insertion_deletion": curves}, fair=True, finite=finite))
        if settings.road_images:
            found = road(
                *self._first(batch, maps, settings.road_images),
                seed=settings.seed,
                first_index=batch.first_index,
                chunk_size=settings.chunk_size,
            )
            views.append(MapForm("road", arrays={"road": found}, fair=True, finite=torch.isfinite(found.combined)))
        return views

    def about(self) -> str:
        """Which class is watched."""
        label = "its label" if self._exclusive else "the likeliest of its labels"
        return f"The class watched in an image is {_watched(self.settings, label)}."

    def _first(
        self, batch: Batch, maps: Tensor, images: int
    ) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor]:
        """What curves are measured on: the batch as far as it belongs to the first images of the data set."""
        use = max(0, images - batch.first_index)
        return self._probabilities, batch.pixel_values[:use], maps[:use], batch.arrays["target"][:use]

    def _logits(self, pixel_values: Tensor) -> Tensor:
        """Scores (B, K), without any map."""
        return in_parts(self._scores, pixel_values)

    def _scores(self, pixel_values: Tensor) -> Tensor:
        outputs = (self._network or (self._model.backbone if self.explains_itself else self._model))(pixel_values)
        scores = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise ValueError(
                f"{type(self._model).__name__} gives no scores (B, K), one for each class: wrap it so that it does."
            )
        return scores

    def _probabilities(self, pixel_values: Tensor) -> Tensor:
        return class_probabilities(self._logits(pixel_values), self._exclusive)

    def _labels(self, batch: Mapping[str, Tensor]) -> Tensor:
        labels, classes = torch.as_tensor(batch["labels"]), self._num_labels
        if not self._exclusive and labels.ndim == 2:
            return self._several(labels, len(batch["pixel_values"]))
        if labels.ndim != 1 or labels.is_floating_point() or len(labels) != len(batch["pixel_values"]):
            raise ValueError(
                f"labels must be one class number for each image, (B,), but they are {tuple(labels.shape)} of "
                f"{labels.dtype}."
            )
        if classes and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"labels must be in 0 … {classes - 1}, the classes of the model, but they span "
                f"{int(labels.min())} … {int(labels.max())}."
            )
        return labels.long().to(self.device)

    def _several(self, labels: Tensor, images: int) -> Tensor:
        if labels.shape != (images, self._num_labels or labels.shape[1]) or not bool(
            ((labels == 0) | (labels == 1)).all()
        ):
            raise ValueError(
                f"labels must be 0 or 1 for each image and class, ({images}, {self._num_labels}), but they are "
                f"{tuple(labels.shape)} from {float(labels.min()):g} to {float(labels.max()):g}."
            )
        return labels.bool().to(self.device)


def _holds(labels: Tensor, classes: Tensor) -> Tensor:
    """(B,), whether the class of each image is its label, (B,), or one of them, (B, K)."""
    return labels == classes if labels.ndim == 1 else labels.gather(1, classes[:, None]).squeeze(1)


def _likeliest(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,), of the labels, (B,) or (B, K); class 0 where there is none."""
    return labels if labels.ndim == 1 else logits.masked_fill(~labels, -torch.inf).argmax(dim=1)


class LandmarkScorer(Scorer):
    """The error of the points, in percent of a length of the object, and agreement with the parts of the object.

    Args:
        model (`AnteHocForLandmarkDetection`): used on the device it is on.
        parts (`Sequence[str]`): names of the P parts whose masks the batches hold.
    """

    uses = (*Scorer.uses, "normalizer")

    def __init__(self, model: nn.Module, settings: EvaluationSettings, parts: Sequence[str] = ()) -> None:
        super().__init__(settings)
        self._model: Any = model
        self._parts, self._length = parts, settings.normalizer

    def see(self, batch: Mapping[str, Tensor], first_index: int) -> Batch:
        """Of `pixel_values`, `labels` (B, K, 2), `normalizer` (B, 2, 2), see `normalizers`, and `part_masks`."""
        require(batch, "pixel_values", "labels", "normalizer", *(["part_masks"] if self._parts else []))
        pixel_values = batch["pixel_values"].to(device=self._model.device, dtype=self._model.dtype)
        outputs = self._model(pixel_values=pixel_values)
        points = {"labels": batch["labels"].cpu(), "normalizer": self._normalizer(batch["normalizer"].cpu())}
        found = outputs.landmarks.cpu()
        valid = torch.isfinite(found).flatten(1).all(dim=1)
        masks = batch["part_masks"].to(self._model.device) if self._parts else None
        regions = {} if masks is None else {part: masks[:, i : i + 1] for i, part in enumerate(self._parts)}
        areas = {part: mask.float().mean(dim=(1, 2, 3)) for part, mask in regions.items()}
        return Batch(
            pixel_values,
            first_index,
            target=None,
            valid=valid,
            included=valid,
            scores={"nme": 100 * nme(found, points["labels"], points["normalizer"])},
            part_areas={part: torch.where(area > 0, area, torch.nan) for part, area in areas.items()},
            maps=outputs.interpretation_map,
            degenerate=outputs.degenerate,
            arrays=points,
            regions=regions,
        )

    def masked(self, batch: Batch, mask: Tensor) -> Masked:
        """`error`."""
        output = in_parts(self._model.backbone, self._model.energy_map(batch.pixel_values, mask))
        found = output.unflatten(1, (-1, 2)).cpu()
        error = nme(found, batch.arrays["labels"], batch.arrays["normalizer"])
        return Masked({"error": error}, torch.isfinite(found).flatten(1).all(dim=1))

    def about(self) -> str:
        """What the errors are."""
        length = {"interocular": "the distance of the eyes", "box": "the diagonal of the points' box"}
        regions = " Energy share / area: 1 is chance." if self._parts else ""
        return f"NME: mean error of the points in percent of {length[str(self._length)]}.{regions}"

    def used_settings(self) -> dict[str, Any]:
        """With the length that errors were divided by."""
        if self._length is None:
            raise ValueError("No image has a length to normalise errors by, or none has known points.")
        return {**super().used_settings(), "normalizer": self._length}

    def _normalizer(self, lengths: Tensor) -> Tensor:
        """The (B, 2) of the length that is chosen, or else known first."""
        known = [name for i, name in enumerate(NORMALIZERS) if bool(torch.isfinite(lengths[:, i]).any())]
        self._length = self._length or next(iter(known), None)
        return lengths[:, NORMALIZERS.index(self._length or NORMALIZERS[0])]


class CaptionScorer(Scorer):
    """The length-normalised probability of a caption: the label's, or of the model's own greedy caption.

    Args:
        model (`AnteHocForImageCaptioning`): used on the device it is on.
    """

    uses = ("target", "area", "areas", "inc_denominator", "tolerance", "seed", "level", "resamples")

    def __init__(self, model: nn.Module, settings: EvaluationSettings) -> None:
        super().__init__(settings)
        self._model: Any = model

    def see(self, batch: Mapping[str, Tensor], first_index: int) -> Batch:
        """Of `pixel_values` and `labels` (B, T), -100 after the end."""
        require(batch, "pixel_values", "labels")
        model = self._model
        pixel_values = batch["pixel_values"].to(device=model.device, dtype=model.dtype)
        encoded = model.encode(pixel_values)
        if self.settings.target == "label":
            labels = batch["labels"].to(model.device)
        else:
            sequences = model.generate(pixel_values=pixel_values, encoder_outputs=encoded)
            labels = sequences[:, 1:].masked_fill(sequences[:, 1:] == model.config.pad_token_id, IGNORED)
        p_image = caption_probability(model(labels=labels, encoder_outputs=encoded).logits, labels).double().cpu()
        read = model.prepare_decoder_input_ids_from_labels(labels)
        last = labels[:, -1:].masked_fill(labels[:, -1:] == IGNORED, model.config.pad_token_id)
        size = (pixel_values.shape[-2], pixel_values.shape[-1])
        explained = model.explain_words(encoded, torch.cat([read, last], dim=1), size)
        valid = torch.isfinite(p_image)
        return Batch(
            pixel_values,
            first_index,
            target=labels,
            valid=valid,
            included=valid,
            maps=explained.interpretation_map,
            degenerate=explained.degenerate,
            arrays={"p_image": p_image, "target": labels},
        )

    def masked(self, batch: Batch, mask: Tensor) -> Masked:
        """`p_energy`."""
        pooled = in_parts(self._model.backbone, self._model.energy_map(batch.pixel_values, mask))
        labels = batch.arrays["target"]
        outputs = self._model(labels=labels, encoder_outputs={"last_hidden_state": pooled.unsqueeze(1)})
        return masked_probability(caption_probability(outputs.logits, labels), self.settings)

    def about(self) -> str:
        """Whose words are watched."""
        words = _watched(self.settings, "the reference caption")
        return f"Measured is the length-normalised probability of the words of {words}."


def scorer_of(
    model: nn.Module,
    settings: EvaluationSettings,
    parts: Sequence[str] = (),
    image_mean: Sequence[float] | None = None,
    image_std: Sequence[float] | None = None,
) -> Scorer:
    """The scorer of a model's task.

    Args:
        model: one of ours, or any other classifier.
        settings: how to measure.
        parts, image_mean, image_std: see `evaluate_maps`.
    """
    if callable(getattr(model, "caption", None)):
        return CaptionScorer(model, settings)
    if getattr(getattr(model, "config", None), "num_landmarks", None):
        return LandmarkScorer(model, settings, parts)
    return ClassificationScorer(model, settings, image_mean, image_std)


def _watched(settings: EvaluationSettings, label: str) -> str:
    return label if settings.target == "label" else "the model's own prediction"


_NME, _FORMS = "Normalised mean error of the points on the masked image, see `nme`.", ("", "equal_area")
register_metric(
    Metric("nme", lambda error: error, "NME", "lower", _NME, scale=100.0, rewards_brightness=True, columns=_FORMS)
)
