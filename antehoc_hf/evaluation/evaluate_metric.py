"""Every metric as a metric of Hugging Face `evaluate`. `evaluate.load` copies this file and runs it elsewhere."""

from typing import Any

import evaluate
import torch
from datasets import Features, List, Value
from torch import Tensor

from antehoc_hf.evaluation.bootstrap import Estimate, bootstrap_means, mean_change
from antehoc_hf.evaluation.metric import metric_named

_MAP = List(List(List(Value("float32"))))
_FEATURES: dict[str, Any] = {
    **dict.fromkeys(("p_image", "p_energy", "p_noisy_image", "p_noisy_energy", "error", "scores"), Value("float64")),
    "correct": Value("bool"),
    **dict.fromkeys(("maps", "other_maps"), _MAP),
    "masks": List(List(List(Value("bool")))),
}
_OF_EVALUATE = ("keep_in_memory", "cache_dir", "hash", "experiment_id", "max_concurrent_cache_files", "timeout")


class MapMetric(evaluate.Metric):
    """A metric of maps for `evaluate`.

    Each batch is scored when it is added, and one number for each image is kept in memory. (`evaluate` itself would
    write every map to a file and read it back as nested lists.) `compute` gives `<name>`, the ends of its interval
    `<name>_low` and `<name>_high`, `<name>_count`, the number of images in the mean, and `<name>_undefined`, the
    number of those on which the metric is not defined.

    Args:
        config_name (`str`): the metric's name.
        level, resamples: of the interval, see `bootstrap_mean`.
        seed (`int`): of ties and of the bootstrap.
        options: of the metric, and what `evaluate.load` passes.

    Raises:
        ValueError: if there is no such metric or option, or for several processes: gather their arrays first.
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
        if num_process != 1:
            raise ValueError(
                "These metrics run in one process: gather the arrays of all processes first "
                "(Accelerator.gather_for_metrics)."
            )
        self._metric = metric_named(config_name)
        # What is computed with the help of a model comes as one number for each image.
        self._inputs = self._metric.inputs if set(self._metric.inputs) <= _FEATURES.keys() else ("scores",)
        of_evaluate = {name: options.pop(name) for name in _OF_EVALUATE if name in options}
        known = self._metric.options if self._inputs == self._metric.inputs else {}
        unknown = sorted(options.keys() - known.keys())
        if unknown:
            listed = ", ".join([*known, "level", "resamples", "seed"])
            raise ValueError(f"The metric {config_name!r} has no option {unknown[0]!r}: there are {listed}.")
        self._options, self._level, self._resamples = options, level, resamples
        self._batches: list[Tensor] = []
        super().__init__(config_name=config_name, seed=seed, process_id=process_id, **of_evaluate)
        self._module_info.module_name = config_name

    def add_batch(self, *, predictions: object = None, references: object = None, **inputs: object) -> None:
        """Scores a batch and keeps one number for each image.

        Args:
            inputs: the arrays of the metric, by name: tensors, numpy arrays or lists.

        Raises:
            ValueError: if an array is missing or of a name that no metric has, or the metric refuses it.
        """
        _refuse_unnamed(predictions, references)
        unknown = sorted(inputs.keys() - _FEATURES.keys())
        if unknown:
            raise ValueError(
                f"{self.name} does not take {unknown[0]!r}: arrays are {', '.join(self._inputs)}; options are given "
                "when the metric is loaded."
            )
        missing = [name for name in self._inputs if inputs.get(name) is None]
        if missing:
            raise ValueError(f"{self.name} needs {', '.join(self._inputs)}: {missing[0]} is missing.")
        arrays = [_tensor(name, inputs[name]) for name in self._inputs]
        self._batches.append(self._values(arrays).detach().double().cpu())

    def _values(self, arrays: list[Tensor]) -> Tensor:
        if self._inputs == self._metric.inputs:
            return self._metric.function(*arrays, **self._options, **self._metric.place(self.seed, len(self)))
        if arrays[0].ndim != 1:
            raise ValueError(f"scores must be (N,), one for each image, but their shape is {tuple(arrays[0].shape)}.")
        return arrays[0]

    def add(self, *, prediction: object = None, reference: object = None, **inputs: object) -> None:
        """Scores one image: the arrays of `add_batch` without their first axis.

        Raises:
            ValueError: see `add_batch`.
        """
        _refuse_unnamed(prediction, reference)
        self.add_batch(
            **{name: None if value is None else _tensor(name, value)[None] for name, value in inputs.items()}
        )

    def compute(
        self, *, predictions: object = None, references: object = None, **inputs: object
    ) -> dict[str, float | int]:
        """The metric over all that was added (and a last batch, if given), which is forgotten then.

        Args:
            inputs: see `add_batch`. Arrays that only other metrics take are passed over, for `evaluate.combine`.

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
        return evaluate.MetricInfo(
            description=self._metric.description or self._metric.heading,
            citation="",
            inputs_description=f"\n\nArrays: {', '.join(self._inputs)}, the first axis of each counting images.",
            features=Features({name: _FEATURES[name] for name in self._inputs}),
        )

    def _build_data_dir(self) -> str:
        return self._data_dir_root  # nothing is written there


def _refuse_unnamed(predictions: object, references: object) -> None:
    if predictions is not None or references is not None:
        raise ValueError("Name the arrays as the metric does (maps=…, masks=…): it has no predictions and references.")


def _tensor(name: str, value: object) -> Tensor:
    """Tensors, arrays, or lists of them as one tensor."""
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return torch.stack(list(value))
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be one array of numbers, the images along its first axis.") from error
