"""Networks for the tables: each is trained once, in a folder of its own, and taken from there ever after."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset
from transformers import AutoImageProcessor

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.model_weights import load_weights
from antehoc_hf.paper.protocols import DataSource, Protocol, Role
from antehoc_hf.training.data import ImageData, ImageDataset, sample
from antehoc_hf.training.data.masks import WithMasks
from antehoc_hf.training.runs.model_types import OURS
from antehoc_hf.training.runs.results import RESULTS_FILE
from antehoc_hf.training.runs.settings import RunSettings, parse_settings
from antehoc_hf.training.runs.train import train

# What does not decide which network comes of a training: where things are, and what is shown.
_ASIDE = ("output_dir", "dataset_name", "resume_from_checkpoint", "disable_tqdm", "report_to", "hub_token")
# The paper's objective; and a network is measured in a cell of its own, here it is only trained.
_OF_OURS = ("--map_head", "energy", "--map_eval_samples", "0", "--panel_images", "0")


def read_finished(path: Path, *parts: str) -> dict[str, Any]:
    """What a JSON file of the benchmark holds.

    Raises:
        UsageError: if it is damaged, or lacks one of these objects.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(found[part], dict) for part in parts):
            return dict(found)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    raise UsageError(f"{path} is damaged: delete it, and it is made anew.")


@dataclass(frozen=True)
class TrainedNetwork:
    """A network that a table needs.

    Args:
        role: what it is for.
        key (`str`): of the data set.
        source: the data set.
        seed (`int`): of its training.
        model_type (`str`): `"antehoc"`, `"plain"`, `"senn"` or `"cbah"`.
        extra (`tuple[str]`): further flags of `antehoc train`.
        variant (`str`): a name for them, part of the folder's.
    """

    role: Role
    key: str
    source: DataSource
    seed: int
    model_type: str = OURS
    extra: tuple[str, ...] = ()
    variant: str = ""

    @property
    def folder(self) -> Path:
        """Within the benchmark's folder."""
        name = "-".join(part for part in (self.model_type, self.variant) if part)
        return Path("models") / self.key / self.role / name / f"seed-{self.seed}"


@dataclass
class Workshop:
    """Trains networks that are missing and opens those that are there.

    Args:
        root (`Path`): the benchmark's folder.
        protocol: how much is trained.
        quiet (`bool`): no progress bars.
    """

    root: Path
    protocol: Protocol
    quiet: bool = False
    _data: dict[str, ImageData[Any]] = field(default_factory=dict)

    def results(self, network: TrainedNetwork) -> dict[str, Any]:
        """What training the network came to; it is trained, or its training resumed, if that is not finished.

        Raises:
            UsageError: if it was trained with other options.
        """
        path = self.root / network.folder / RESULTS_FILE
        if not path.exists():
            print(f"\n== Training {network.folder} ==", flush=True)
            resume = any(path.parent.glob("checkpoint-*"))
            train([*self._flags(network), *(["--resume_from_checkpoint", "true"] if resume else [])])
        results = read_finished(path, "settings", "metrics")
        found, wanted = _deciding(results["settings"]), self.options(network)
        if found != wanted:
            name = next(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
            raise UsageError(
                f"{path.parent} was trained with {name}={found.get(name)!r}, not {wanted.get(name)!r}: choose another "
                "--output_dir, or delete that network and its cells."
            )
        return results

    def options(self, network: TrainedNetwork) -> dict[str, Any]:
        """The training's options that decide which network comes of it, as JSON would have them."""
        return _deciding(self.settings(network).given)

    def model(self, network: TrainedNetwork) -> Any:
        """The trained network, on the device, in evaluation mode."""
        self.results(network)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model_class = self.settings(network).task.model_class
        return load_weights(model_class, self.root / network.folder).to(device).eval()

    def processor(self, network: TrainedNetwork) -> Any:
        """The trained network's image processor."""
        self.results(network)
        return AutoImageProcessor.from_pretrained(self.root / network.folder)

    def settings(self, network: TrainedNetwork) -> RunSettings:
        """All options of the network's training."""
        return parse_settings(self._flags(network))

    def test_images(self, network: TrainedNetwork) -> ImageDataset:
        """The images that nothing was trained on: the test split, or else the validation split."""
        data, processor = self._loaded(network), self.processor(network)
        role = next((role for role in ("test", "validation") if role in data.splits), None)
        if role is None:
            raise UsageError(f"{data.name} has no test images: name its split with --test_split.")
        encode = data.targets.encoder(processor, None)
        return ImageDataset(data.splits[role], data.image_column, data.targets, encode)

    def batches(self, network: TrainedNetwork, count: int, size: int = 25) -> DataLoader[Any]:
        """A seeded choice of the test images, with masks of the true evidence where the data set has them."""
        images = self.test_images(network)
        dataset: Any = images
        if network.source.mask_column is not None and network.role in ("classifier", "comparison"):
            dataset = WithMasks(images, network.source.mask_column, self.processor(network))
        task = self.settings(network).task
        parts = task.trainer_parts(self._loaded(network))
        return DataLoader(
            Subset(dataset, sample(images, count)), batch_size=size, collate_fn=parts.get("data_collator")
        )

    def _loaded(self, network: TrainedNetwork) -> ImageData[Any]:
        key = f"{network.role} {network.key} {network.variant}"
        if key not in self._data:
            settings = self.settings(network)
            self._data[key] = settings.task.load_data(settings.data)
        return self._data[key]

    def _flags(self, network: TrainedNetwork) -> list[str]:
        if network.source.name is None:
            raise UsageError(
                f"It is not known where {network.source.title} is: say so with, --data {network.key}=FOLDER."
            )
        return [
            *self.protocol.training_flags(network.role, network.source),
            *("--dataset_name", network.source.name, "--output_dir", str(self.root / network.folder)),
            *("--seed", str(network.seed), "--eval_strategy", "no", "--save_total_limit", "1", "--report_to", "none"),
            *(
                (*self.protocol.ours, *_OF_OURS)
                if network.model_type == OURS
                else ("--model_type", network.model_type)
            ),
            *(["--disable_tqdm", "true"] if self.quiet else []),
            *network.extra,
        ]


def _deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: value for name, value in options.items() if name not in _ASIDE}
    return dict(json.loads(json.dumps(chosen, default=str)))
