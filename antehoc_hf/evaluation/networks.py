"""What can be known of a network, whatever it is wrapped in; and a network that is left as it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from antehoc_hf.modeling.map_head import as_list, is_number

_PASSING_ON = ("torch.nn.parallel", "torch.optim.swa_utils", "timm.utils.model_ema")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel`, `DistributedDataParallel` or an average of weights."""
    while True:
        parts = dict(model.named_children())
        if "_orig_mod" in parts:
            model = parts["_orig_mod"]
        elif set(parts) == {"module"} and type(model).__module__.startswith(_PASSING_ON):
            model = parts["module"]
        else:
            return model


def is_ante_hoc(model: nn.Module) -> bool:
    """Whether it is one of ours, with a map of its own."""
    return hasattr(model, "map_head") and hasattr(model, "backbone")


def body_of(model: nn.Module) -> nn.Module:
    """The network itself: the backbone of one of ours, timm's own inside transformers' wrapper."""
    inner = model.backbone if is_ante_hoc(model) else getattr(model, "timm_model", model)
    assert isinstance(inner, nn.Module)
    return unwrapped(inner)


def normalisation_of(model: nn.Module) -> tuple[Sequence[float], Sequence[float]] | None:
    """Mean and standard deviation of the colours (pixels in [0, 1]), three numbers each, as far as the model's
    configuration or timm's says them; None where neither does: it must be asked for and not guessed.
    """
    model = unwrapped(model)
    config = getattr(model, "config", None)
    timm_says = dict(getattr(body_of(model), "pretrained_cfg", None) or {})
    timm_says |= getattr(config, "pretrained_cfg", None) or {}  # a TimmWrapper's own
    mean = getattr(config, "image_mean", None) or timm_says.get("mean")
    std = getattr(config, "image_std", None) or timm_says.get("std")
    return None if mean is None or std is None else (mean, std)


def black_pixel(
    model: nn.Module, image_mean: Sequence[float] | None = None, image_std: Sequence[float] | None = None
) -> Tensor:
    """Black as the model sees it, (1, C, 1, 1): pixel 0 after its normalisation.

    Args:
        model: one of ours, of timm, of torchvision or of transformers.
        image_mean, image_std: known better than the model says.

    Raises:
        ValueError: if the normalisation of the model's images is not known, or is none.
    """
    known = normalisation_of(model) or (None, None)
    mean = known[0] if image_mean is None else image_mean
    std = known[1] if image_std is None else image_std
    if mean is None or std is None:
        raise ValueError(
            f"It is not known how {type(model).__name__} normalises its images, and so not what black is: pass "
            "image_mean and image_std."
        )
    return normalised_black(mean, std).view(1, -1, 1, 1)


def normalised_black(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixel 0 after a normalisation, (C,) float64.

    Raises:
        ValueError: if these are not as many finite numbers each, the latter above 0.
    """
    means, stds = (as_list(values) for values in (mean, std))
    if not (
        isinstance(means, list)
        and isinstance(stds, list)
        and len(means) == len(stds) > 0
        and all(map(is_number, [*means, *stds]))
        and min(stds) > 0
    ):
        raise ValueError(
            f"image_mean={str(mean)[:60]} and image_std={str(std)[:60]} must be a list of numbers each, one for each "
            "channel, those of image_std above 0."
        )
    return -torch.tensor(means, dtype=torch.float64) / torch.tensor(stds, dtype=torch.float64)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and every module as it was afterwards."""
    was_training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in was_training.items():
            module.training = training
