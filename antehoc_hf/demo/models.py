"""Models as the demo page keeps them: loaded once, used by one visitor at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoTokenizer

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.commands.inputs import load_model, verdict_of
from antehoc_hf.demo.limits import ModelLock, watch
from antehoc_hf.evaluation.familiarity import Familiarity, channel_statistics
from antehoc_hf.explainers.network import Kind, Network
from antehoc_hf.model_weights import model_config
from antehoc_hf.modeling.configuration_captions import check_tokenizer

_KINDS: dict[Kind, str] = {"classes": "image classification", "landmarks": "landmarks", "captions": "captions"}


@dataclass(frozen=True)
class DemoModel:
    """A model with what belongs to it.

    Attributes:
        name (`str`): folder or Hub name.
        model: one of ours, with its head, in evaluation mode.
        processor: its image processor.
        tokenizer (*optional*): of a captioner.
        kind (`str`): `"classes"`, `"landmarks"` or `"captions"`.
        familiarity (*optional*): of its training images; None if they were not kept.
        verdict (`str`): a sentence on whether its maps may be trusted, from held-out images; empty if there is none.
        lock: held while the model is used: explainers hook into it, and visitors come at the same time.
    """

    name: str
    model: Any
    processor: Any
    tokenizer: Any
    kind: Kind
    familiarity: Familiarity | None = None
    verdict: str = ""
    lock: ModelLock = field(default_factory=ModelLock, repr=False, compare=False)

    @property
    def map_per_target(self) -> bool:
        """Whether the model has a map for each class."""
        return bool(getattr(getattr(self.model, "map_head", None), "per_target", False))

    @property
    def description(self) -> str:
        """Task, backbone and input size, for people."""
        config = self.model.config
        height, width = self.processor.size["height"], self.processor.size["width"]
        return f"{_KINDS[self.kind]} · {config.backbone} · {width} × {height} pixels"


def load_demo_model(name: str) -> DemoModel:
    """A model, its image processor and, for captions, its tokenizer; tried once, so that the first visitor need not
    wait.

    Args:
        name (`str`): folder or Hub name of one of our models: classification, landmarks or captions.

    Raises:
        ValueError: if it is not such a model, or its parts do not belong together.
        OSError: if it cannot be loaded.
    """
    config = model_config(name)
    if not hasattr(config, "map_head"):
        raise UsageError(
            f"{name} is a model of type {config.model_type!r} and has no map of its own: the demo shows ante-hoc "
            "models; `antehoc explain` takes any image classifier."
        )
    model, processor = load_model(name)
    kind = Network(model).kind
    tokenizer = None
    if kind == "captions":
        tokenizer = AutoTokenizer.from_pretrained(name)
        check_tokenizer(tokenizer, model.config)
    height, width = processor.size["height"], processor.size["width"]
    nothing = torch.zeros(1, 3, height, width, device=model.device, dtype=model.dtype)
    with torch.no_grad():
        model.interpretation(nothing)
    familiarity = Familiarity.load(name)
    if familiarity is not None and familiarity.mean.shape != channel_statistics(model, nothing).shape[1:]:
        familiarity = None  # left behind by an earlier model
    watch(model)
    return DemoModel(name, model, processor, tokenizer, kind, familiarity, verdict_of(name))


def load_demo_models(names: Sequence[str]) -> dict[str, DemoModel]:
    """The models by the name a visitor chooses them by: the end of each name where that tells them apart.

    Raises:
        ValueError, OSError: see [`load_demo_model`].
    """
    given = list(dict.fromkeys(names))
    short = [name.rstrip("/").rsplit("/", 1)[-1] for name in given]
    labels = short if len(set(short)) == len(short) else given
    return {label: load_demo_model(name) for label, name in zip(labels, given, strict=True)}
