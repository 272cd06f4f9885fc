"""The cells of the tables: each is computed once, written down whole, and read from there ever after."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from antehoc_hf.commands.errors import UsageError
from antehoc_hf.evaluation import EvaluationSettings, evaluate_maps, evaluate_stability
from antehoc_hf.evaluation.settings import FORMS
from antehoc_hf.explainers import measured_explainers
from antehoc_hf.paper.workshop import TrainedNetwork, Workshop, read_finished
from antehoc_hf.training.runs.results import write_results
from antehoc_hf.training.tasks.base import MeasureOptions

CAPTION_IMAGES = 300


@dataclass(frozen=True)
class CellStore:
    """Finished cells in a folder.

    Args:
        folder (`Path`): where they are.
        protocol (`str`): of the recipe by which all of them are computed.
    """

    folder: Path
    protocol: str

    def get(self, name: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The cell of that name, computed if it is not there.

        Args:
            name (`str`): may have slashes.
            settings (`dict`): all that its value depends on.
            compute: gives its value; called only if there is none.

        Raises:
            UsageError: if the cell was computed with other settings: nothing is overwritten.
        """
        path = self.folder / f"{name}.json"
        wanted = json.loads(json.dumps({"protocol": self.protocol, **settings}, default=str))
        if path.exists():
            found = read_finished(path, "settings", "value")
            if found["settings"] != wanted:
                other = next(
                    key for key in {**wanted, **found["settings"]} if wanted.get(key) != found["settings"].get(key)
                )
                raise UsageError(
                    f"{path} was computed with {other}={found['settings'].get(other)!r}, not {wanted.get(other)!r}: "
                    "choose another --output_dir, or delete that cell."
                )
            return dict(found["value"])
        print(f"\n== Measuring {name} ==", flush=True)
        value = compute()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_results(path, {"settings": wanted, "value": value})
        return dict(json.loads(path.read_text(encoding="utf-8"))["value"])


@dataclass(frozen=True)
class Bench:
    """Everything a table needs: networks, cells, and which other explanations are compared with ours.

    Args:
        workshop: trains and opens networks.
        cells: finished cells.
        explainers (`tuple[str]`): names of the post-hoc methods.
    """

    workshop: Workshop
    cells: CellStore
    explainers: tuple[str, ...] = ("grad-cam", "grad-cam++", "score-cam")

    def maps(self, network: TrainedNetwork) -> dict[str, Any]:
        """Tables 1 and 2 and what brightness can't buy: a `MapReport` as plain data."""
        protocol = self.workshop.protocol
        settings = EvaluationSettings(
            areas=(0.05, 0.1, 0.3, 0.5),
            insertion_deletion_images=protocol.slow_images,
            insertion_deletion=FORMS,
            road_images=protocol.slow_images,
        )
        return self._cell(
            f"maps/{network.key}",
            network,
            {"images": protocol.images, "slow_images": protocol.slow_images, "explainers": list(self.explainers)},
            lambda: self._report(network, protocol.images, settings),
        )

    def stability(self, network: TrainedNetwork) -> dict[str, Any]:
        """Table 5: a `MapReport` as plain data."""
        protocol = self.workshop.protocol

        def compute() -> dict[str, Any]:
            model, processor = self.workshop.model(network), self.workshop.processor(network)
            return evaluate_stability(
                model,
                self.workshop.batches(network, protocol.slow_images),
                image_mean=processor.image_mean,
                image_std=processor.image_std,
                shares=protocol.noise,
                explainers=measured_explainers(self.explainers, model),
            ).to_dict()

        options = {"images": protocol.slow_images, "noise": list(protocol.noise), "explainers": list(self.explainers)}
        return self._cell(f"stability/{network.key}", network, options, compute)

    def captions(self, network: TrainedNetwork) -> dict[str, Any]:
        """Table 4: a `MapReport` as plain data."""
        images = min(CAPTION_IMAGES, self.workshop.protocol.images)
        options = {"images": images, "explainers": list(self.explainers)}
        return self._cell(f"captions/{network.key}", network, options, lambda: self._report(network, images))

    def landmarks(self, network: TrainedNetwork) -> dict[str, Any]:
        """The numbers to Figure 4: a `MapReport` as plain data."""
        images = self.workshop.protocol.images

        def compute() -> dict[str, Any]:
            shop, task = self.workshop, self.workshop.settings(network).task
            options = MeasureOptions(count=images)
            found = task.measure(shop.model(network), shop.test_images(network), shop.processor(network), options)
            return dict(found.report or {})

        return self._cell(f"landmarks/{network.key}/{network.variant}", network, {"images": images}, compute)

    def _report(
        self, network: TrainedNetwork, images: int, settings: EvaluationSettings | None = None
    ) -> dict[str, Any]:
        model, batches = self.workshop.model(network), self.workshop.batches(network, images)
        return evaluate_maps(
            model, batches, settings, explainers=measured_explainers(self.explainers, model)
        ).to_dict()

    def _cell(
        self, name: str, network: TrainedNetwork, options: dict[str, Any], compute: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """A cell's value depends on how its network was trained, too."""
        training = {f"training.{option}": value for option, value in self.workshop.options(network).items()}
        return self.cells.get(f"{name}/seed-{network.seed}", {**options, **training}, compute)


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation over seeds; None where there is nothing, or one seed alone."""
    known = torch.tensor([value for value in values if value is not None], dtype=torch.float64)
    if not len(known):
        return None, None
    return float(known.mean()), float(known.std()) if len(known) > 1 else None
