"""A metric of maps is one object, and everything that prints or computes metrics reads it from one registry.

    def distance_from_centre(maps: Tensor) -> Tensor: ...  # (B, 1, H, W) → (B,)

    register_metric(Metric("distance_from_centre", distance_from_centre, "distance from the centre", better="lower"))

From then on it has a column in the reports of every task, in their JSON and on the model card, and
`load_metric("distance_from_centre")` gives it as a metric of Hugging Face `evaluate`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor

_PLACE = ("seed", "first_index")


@dataclass(frozen=True)
class Metric:
    """What is measured of a map.

    Args:
        name (`str`): in reports and for `load_metric`.
        function (`Callable`): `(*inputs, **options)` → (B,), the value of each image, NaN where there is none; the
            metric is their mean. Its parameters without a default are the inputs, found by name:

            - `maps` (B, 1, H, W) in [0, 1];
            - `masks` (B, 1, H, W) bool, of the true evidence; a landmark report has one for each part;
            - `p_image`, `p_energy` (B,) float64, what the image and the masked image are worth: the probability of
              the class or of the caption (not for landmarks);
            - `correct` (B,) bool, whether the masked image is classified correctly (classification);
            - `error` (B,) float64, the normalised mean error on the masked image (landmarks);
            - `insertion_deletion`, an `InsertionDeletion`, and `road`, a `Road` (classification, where asked for);
            - `pixel_values`, `target`, and `predict`, images → probabilities (N, K) (classification).

            A report leaves out what its task does not have. Parameters with a default are options; `seed` and
            `first_index` are set to the seed and to the place of the first image in its data set.
        heading (`str`): of its column, without an arrow.
        better (`"higher"`, `"lower"` or None): None describes a map and does not judge it.
        description (`str`): one sentence with range and direction, for `evaluate`.
        scale (`float`): what reports multiply it by: 100 for percent.
        decimals (`int`): in tables.
        rewards_brightness (`bool`): whether a brighter map scores better on image ⊙ map, whatever it shows.
        columns (`tuple[str]`, *optional*): in which forms it has a column in tables, of `""` (image ⊙ map),
            `"binarised"`, `"equal_area"`, and those of insertion and deletion; None: all. JSON holds every form.
        reported (`bool`): False: a metric of `evaluate` alone.
    """

    name: str
    function: Callable[..., Tensor]
    heading: str
    better: Literal["higher", "lower"] | None = None
    description: str = ""
    scale: float = 1.0
    decimals: int = 2
    rewards_brightness: bool = False
    columns: tuple[str, ...] | None = None
    reported: bool = True

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it is computed from."""
        return tuple(name for name, default in self._parameters.items() if default is inspect.Parameter.empty)

    @cached_property
    def options(self) -> Mapping[str, object]:
        """Names and defaults of the options."""
        known = (*self.inputs, *_PLACE)
        return {name: default for name, default in self._parameters.items() if name not in known}

    def place(self, seed: int, first_index: int) -> dict[str, int]:
        """`seed` and `first_index` for a function with random draws, nothing for others."""
        return dict(zip(_PLACE, (seed, first_index), strict=True)) if _PLACE[0] in self._parameters else {}

    @cached_property
    def _parameters(self) -> dict[str, object]:
        return {name: parameter.default for name, parameter in inspect.signature(self.function).parameters.items()}


METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order of the columns."""


def given_scores(scores: Tensor) -> Tensor:
    """The function of a metric whose values, (N,), are computed elsewhere."""
    return scores


def register_metric(*metrics: Metric) -> None:
    """Makes metrics known to reports, cards and `load_metric`.

    Raises:
        ValueError: if there is one of that name.
    """
    for metric in metrics:
        if metric.name in METRICS:
            raise ValueError(f"There is already a metric {metric.name!r}: give this one another name.")
        METRICS[metric.name] = metric


def metric_named(name: str | None) -> Metric:
    """The metric of that name.

    Raises:
        ValueError: if there is none.
    """
    if name in METRICS:
        return METRICS[name]
    near = get_close_matches(str(name), METRICS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METRICS)}."
    raise ValueError(f"There is no metric {name!r}: {hint}")


def metric_path(name: str) -> str:
    """The script for `evaluate.load(metric_path(name), name)`: it holds all metrics, hence the name as the second
    argument, `evaluate`'s `config_name`.

    Raises:
        ValueError: if there is no such metric.
    """
    metric_named(name)
    return str(Path(__file__).with_name("evaluate_metric.py"))
