"""What all metrics have in common: batches become one value an image at once, and these a mean with its interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import evaluate
import torch
from datasets import Features, List, Value
from torch import Tensor

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means, mean_change

_MAP = List(List(List(Value("float32"))))
_FEATURES: dict[str, Any] = {
    **dict.fromkeys(("p_image", "p_energy", "p_noisy_image", "p_noisy_energy", "scores"), Value("float64")),
    **dict.fromkeys(("maps", "other_maps"), _MAP),
    "masks": List(List(List(Value("bool")))),
}
_OF_EVALUATE = ("keep_in_memory", "cache_dir", "hash", "experiment_id", "max_concurrent_cache_files", "timeout")


@dataclass(frozen=True)
class Measure:
    """
    One measure as a metric needs it.

    Attributes:
        description (`str`): a sentence, with range and direction.
        inputs (`tuple[str, ...]`): names of the arrays, first axis images.
        terms (`Callable`): `(*arrays, **options)` → (N,), the values whose mean is the measure, NaN where it says
            nothing; or (N, 2) if it is the size of the difference of two means.
        options (`dict`): names and defaults.
        drawn (`bool`): whether `terms` takes `seed` and `first_index` as well.
    """

    description: str
    inputs: tuple[str, ...]
    terms: Callable[..., Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    drawn: bool = False


class MapMetric(evaluate.Metric, ABC):
    """
    A measure as a metric of `evaluate`.

    Each batch is scored when it is added, and one number an image is kept, in memory. (`evaluate` itself would write
    every map to a file and read it back as nested lists.) `compute` gives `<name>`, the ends of its interval
    `<name>_low` and `<name>_high`, `<name>_count`, the number of images in the mean, and `<name>_undefined`, the
    number of those on which the measure says nothing.

    Args:
        config_name (`str`): which measure of the family.
        level, resamples: of the interval, see `bootstrap_mean`.
        seed (`int`): of ties and of the bootstrap.
        options: of the measure, and what `evaluate.load` passes.

    Raises:
        ValueError: if there is no such measure or option, or for several processes: gather their arrays first.
    """

    def __init__(
        self,
        config_name: str | None = None,
        *,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
        num_process: int = 1,
        process_id: int = 0,
        **options: Any,
    ) -> None:
        measures = self.measures()
        if config_name is None or config_name not in measures:
            raise ValueError(f"There is no metric {config_name!r} here: name one of {', '.join(measures)}.")
        if num_process != 1:
            raise ValueError(
                "These metrics run in one process: gather the arrays of all processes first "
                "(Accelerator.gather_for_metrics)."
            )
        self._measure = measures[config_name]
        of_evaluate = {name: options.pop(name) for name in _OF_EVALUATE if name in options}
        unknown = sorted(options.keys() - self._measure.options.keys())
        if unknown:
            known = ", ".join([*self._measure.options, "level", "resamples", "seed"])
            raise ValueError(f"The metric {config_name!r} has no option {unknown[0]!r}: there are {known}.")
        self._options = {**self._measure.options, **options}
        self._level, self._resamples = level, resamples
        self._batches: list[Tensor] = []
        super().__init__(config_name=config_name, seed=seed, process_id=process_id, **of_evaluate)
        self._module_info.module_name = config_name

    @staticmethod
    @abstractmethod
    def measures() -> Mapping[str, Measure]:
        """The measures of the family, by name."""

    def add_batch(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> None:
        """
        Scores a batch and keeps one number an image.

        Args:
            inputs: the arrays of the measure, by name: tensors, numpy arrays or lists.

        Raises:
            ValueError: if an array is missing or none that any measure takes, or the measure refuses it.
        """
        _refuse_unnamed(predictions, references)
        measure = self._measure
        unknown = sorted(inputs.keys() - _FEATURES.keys())
        if unknown:
            raise ValueError(
                f"{self.name} knows no {unknown[0]!r}: arrays are {', '.join(measure.inputs)}; options are given when "
                "the metric is loaded."
            )
        missing = [name for name in measure.inputs if inputs.get(name) is None]
        if missing:
            raise ValueError(f"{self.name} needs {', '.join(measure.inputs)}: {missing[0]} is missing.")
        arrays = [_tensor(name, inputs[name]) for name in measure.inputs]
        place = {"seed": self.seed, "first_index": len(self)} if measure.drawn else {}
        terms = measure.terms(*arrays, **self._options, **place)
        self._batches.append(terms.detach().double().cpu())

    def add(self, *, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """
        Scores one image: the arrays of `add_batch` without their first axis.

        Raises:
            ValueError: see `add_batch`.
        """
        _refuse_unnamed(prediction, reference)
        self.add_batch(
            **{name: None if value is None else _tensor(name, value)[None] for name, value in inputs.items()}
        )

    def compute(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> dict[str, float | int]:
        """
        The measure of all that was added (and of a last batch, if given), which is forgotten then.

        Args:
            inputs: see `add_batch`. Arrays that only other measures take are passed over, for `evaluate.combine`.

        Raises:
            ValueError: if there is nothing to compute; see `add_batch`.
        """
        if predictions is not None or references is not None or any(value is not None for value in inputs.values()):
            self.add_batch(predictions=predictions, references=references, **inputs)
        if not self._batches:
            raise ValueError(f"{self.name} has nothing to compute: add batches first.")
        values = torch.cat(self._batches)
        self._batches = []
        estimate = self._estimate(values)
        undefined = int((~torch.isfinite(values)).reshape(len(values), -1).any(dim=1).sum())
        return {
            self.name: estimate.value,
            f"{self.name}_low": estimate.low,
            f"{self.name}_high": estimate.high,
            f"{self.name}_count": estimate.count,
            f"{self.name}_undefined": undefined,
        }

    def _estimate(self, values: Tensor) -> Estimate:
        options = (self._level, self._resamples, self.seed)
        if values.ndim == 2:
            return mean_change(values, torch.isfinite(values), *options)
        return bootstrap_means(values[:, None], torch.isfinite(values)[:, None], *options)[0]

    def __len__(self) -> int:
        return sum(map(len, self._batches))

    def _info(self) -> evaluate.MetricInfo:
        inputs = self._measure.inputs
        return evaluate.MetricInfo(
            description=self._measure.description,
            citation="",
            inputs_description=f"\n\nArrays: {', '.join(inputs)}, the first axis of each counting images.",
            features=Features({name: _FEATURES[name] for name in inputs}),
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root  # nothing is written there


def _refuse_unnamed(predictions: Any, references: Any) -> None:
    if predictions is not None or references is not None:
        raise ValueError(
            "Name the arrays as the measure does (maps=…, masks=…): there are no predictions, references."
        )


def _tensor(name: str, value: Any) -> Tensor:
    """Tensors, arrays, or lists of them as one tensor."""
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return torch.stack(list(value))
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be one array of numbers, the images along its first axis.") from error
