"""Who learns and which statistics move in each of the two passes."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Phase = Literal["task", "interpretation", "prediction"]
BatchNormMode = Literal["eval", "batch", "update"]


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
    """Keeps batch norms from storing the statistics of masked images, unless `batch_norm="update"`.

    With `"batch"` they normalise by the batch: a batch norm that does not track its statistics does just that. With
    `"eval"` those whose weights are frozen keep no activation for the backward pass.

    Raises:
        ValueError: if `batch_norm` is none of `"eval"`, `"batch"`, `"update"`.
    """
    if batch_norm not in ("eval", "batch", "update"):
        raise ValueError(f"batch_norm={batch_norm!r} is not one of 'eval', 'batch', 'update'.")
    modules = [module for module in backbone.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    tracking = [module for module in modules if module.track_running_stats]
    # Some libraries give a module a forward of its own: it is called here and put back afterwards.
    lean = [(module, vars(module).get("forward")) for module in modules if batch_norm == "eval"]
    for module in tracking:
        module.track_running_stats = batch_norm != "batch"
    for module, _ in lean:
        module.forward = partial(_without_kept_input, module.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
        for module, own in lean:
            del module.forward
            if own is not None:
                module.forward = own  # type: ignore[method-assign]


def _without_kept_input(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Around each batch norm alone, and not around the pass: gradient checkpointing runs parts of the network again
    # during the backward pass, on a GPU in another thread, where a mode of this one does not hold.
    if torch.compiler.is_compiling():
        return forward(*args, **kwargs)
    with _LeanBatchNorm():
        return forward(*args, **kwargs)


class _LeanBatchNorm(TorchFunctionMode):
    """`F.batch_norm` by running statistics and with frozen weights keeps a scale in place of its input."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(
    features: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, by way of [`_FrozenBatchNorm`] where that gives the same gradients."""
    learns = any(parameter is not None and parameter.requires_grad for parameter in (weight, bias))
    needs_gradient = features.requires_grad and torch.is_grad_enabled()
    if training or learns or not needs_gradient or running_mean is None or running_var is None:
        return F.batch_norm(features, running_mean, running_var, weight, bias, training, momentum, eps)
    return _FrozenBatchNorm.apply(features, running_mean, running_var, weight, bias, eps)


class _FrozenBatchNorm(torch.autograd.Function):
    """Batch norm as the affine function it is in evaluation mode; PyTorch's keeps its input to no purpose."""

    @staticmethod
    def forward(
        context: Any,
        features: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        scale = torch.rsqrt(running_var.float() + eps)
        context.save_for_backward(scale if weight is None else scale * weight.float())
        return F.batch_norm(features, running_mean, running_var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = context.saved_tensors
        scale = scale.view(-1, *[1] * (gradient.ndim - 2))
        return (gradient * scale).to(gradient.dtype), None, None, None, None, None
