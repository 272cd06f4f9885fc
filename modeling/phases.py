"""Who learns and which statistics move in each of the two passes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Switches `requires_grad` off for these parameters and back on for those that had it."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


@contextmanager
def masked_pass_mode(backbone: nn.Module, batch_norm: str) -> Iterator[None]:
    """
    Keeps batch norms from storing the statistics of masked images, unless `batch_norm="update"`.

    With `"batch"` they normalise by the batch: a batch norm that does not track its statistics does just that.

    Raises:
        ValueError: if `batch_norm` is none of `"eval"`, `"batch"`, `"update"`.
    """
    if batch_norm not in ("eval", "batch", "update"):
        raise ValueError(f"batch_norm={batch_norm!r} is not one of 'eval', 'batch', 'update'.")
    tracking = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for module in tracking:
        module.track_running_stats = batch_norm != "batch"
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
