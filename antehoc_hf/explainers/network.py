"""Any model as explainers see it: a module to read, its outputs, and what may be asked about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from antehoc_hf.evaluation.judged import black_pixel
from antehoc_hf.evaluation.mode import evaluation_mode
from antehoc_hf.explainers.targets import Ask, CaptionTarget, Target, class_target, point_target
from antehoc_hf.modeling.tap_search import LayerCall, watch

Kind = Literal["classes", "landmarks", "captions"]


class Network(nn.Module):
    """
    A model behind one interface: `network(pixel_values)` gives what targets are read from: logits (B, K), coordinates
    (B, 2K), or, with a caption, logits (B, T, V).

    Args:
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.

    Raises:
        ValueError: if it is no such model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(f"An explainer needs a model, not {type(model).__name__}.")
        self.model = model
        ours = hasattr(model, "map_head") and hasattr(model, "backbone")
        # The network itself: the map of an ante-hoc model is no part of the prediction that is explained.
        self.body: nn.Module = model.backbone if ours else model  # type: ignore[assignment]
        self.kind: Kind = _kind(model, ours)
        self._words = torch.empty(0, 0, dtype=torch.long)  # what the decoder is fed, while captions are explained

    @property
    def config(self) -> Any:
        """The model's configuration, if it has one."""
        return getattr(self.model, "config", None)

    def forward(self, pixel_values: Tensor, positions: Tensor | None = None) -> Tensor:
        """
        What targets are read from.

        Args:
            pixel_values (`Tensor`): (N, 3, H, W).
            positions (`Tensor`, *optional*): (N,) which image of the explained batch each is a version of; None: all
                of them in order. Captions differ from image to image.
        """
        if self.kind == "captions":
            words = self._words if positions is None else self._words[positions]
            words = words if len(words) == len(pixel_values) else words.expand(len(pixel_values), -1)
            return self.model(pixel_values, decoder_input_ids=words, phase="task").logits
        outputs = self.body(pixel_values)
        return outputs if isinstance(outputs, Tensor) else outputs.logits

    def checked(self, pixel_values: Tensor) -> Tensor:
        """
        The images on the model's device and in its type.

        Raises:
            ValueError: if they are no batch of images.
        """
        if isinstance(pixel_values, list | tuple):
            raise ValueError("pixel_values must be one tensor (B, 3, H, W): images of different sizes go one by one.")
        if not isinstance(pixel_values, Tensor) or pixel_values.ndim != 4 or not pixel_values.is_floating_point():
            shape = tuple(pixel_values.shape) if isinstance(pixel_values, Tensor) else type(pixel_values).__name__
            raise ValueError(f"pixel_values must be normalised images (B, 3, H, W) in floating point, not {shape}.")
        first = next(self.model.parameters(), pixel_values)
        return pixel_values.detach().to(device=first.device, dtype=first.dtype)

    def question(self, pixel_values: Tensor, target: Any) -> Ask:
        """
        What a user asks about these images; answered by the outputs that the method computes anyway.

        Raises (here or when asked):
            ValueError: if the model has no such class, landmark or word.
        """
        if self.kind == "captions":
            caption = self._caption_target(pixel_values, target)
            return lambda outputs: caption
        config = self.config
        independent = getattr(config, "problem_type", None) == "multi_label_classification"

        def ask(outputs: Tensor) -> Target:
            if outputs.ndim != 2:
                raise ValueError(
                    f"The model gives {tuple(outputs.shape)} where explainers need one score a class, (B, K): wrap it "
                    "so that its forward pass does."
                )
            if self.kind == "landmarks":
                return point_target(target, outputs, config.landmark_names, dict(config.landmark_parts or {}))
            return class_target(target, outputs, independent)

        return ask

    def _caption_target(self, pixel_values: Tensor, target: Any) -> Target:
        """The model's own caption, a caption of ids, or (caption, position of a word)."""
        caption, word = target if isinstance(target, tuple) and len(target) == 2 else (target, None)
        model: Any = self.model
        with torch.no_grad():
            sequences = model.generate(pixel_values) if caption is None else torch.as_tensor(caption)
        sequences = sequences.to(pixel_values.device)
        sequences = sequences.expand(len(pixel_values), -1) if sequences.ndim == 1 else sequences
        tokens, counted = sequences[:, 1:], sequences[:, 1:] != self.config.pad_token_id
        if word is not None:
            if not 0 <= int(word) < tokens.shape[1]:
                raise ValueError(f"There is no word {word} in a caption of {tokens.shape[1]} words.")
            only = torch.zeros_like(counted)
            only[:, int(word)] = True
            counted = counted & only
        self._words = sequences[:, :-1]
        return CaptionTarget(tokens, counted)

    @contextmanager
    def one_of_the_batch(self, at: Tensor) -> Iterator[None]:
        """Inside, every image that goes through is a version of the one at this (1,) position."""
        words = self._words
        self._words = words[at] if len(words) else words
        try:
            yield
        finally:
            self._words = words

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Evaluation mode inside; modes, `requires_grad` and gradients as they were afterwards."""
        kept = [(parameter, parameter.requires_grad, parameter.grad) for parameter in self.model.parameters()]
        with evaluation_mode(self.model):
            try:
                yield
            finally:
                for parameter, required, gradient in kept:
                    parameter.requires_grad_(required)
                    parameter.grad = gradient

    def black(self, pixel_values: Tensor) -> Tensor:
        """Black images of the same shape, normalised as the model expects it (see `black_pixel`)."""
        return black_pixel(self.model).to(pixel_values).expand_as(pixel_values)

    def calls(self, pixel_values: Tensor) -> list[LayerCall]:
        """Every call of the body's modules on one image, with the grids they return."""
        height, width = pixel_values.shape[-2:]
        image = pixel_values.new_zeros(1, 3, height, width)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return watch(self.body, image)


def _kind(model: Any, ours: bool) -> Kind:
    if ours:
        if getattr(model.config, "vocab_size", None) and hasattr(model, "generate"):
            return "captions"
        if getattr(model.config, "num_landmarks", None) and "landmarks" in model.onnx_outputs:
            return "landmarks"
        if "logits" in model.onnx_outputs:
            return "classes"
        raise ValueError(f"{type(model).__name__} has no head and predicts nothing that could be explained.")
    if isinstance(model, PreTrainedModel) and not hasattr(model, "num_labels"):
        raise ValueError(f"{type(model).__name__} is no image classifier.")
    return "classes"
