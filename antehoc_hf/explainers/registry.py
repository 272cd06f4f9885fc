"""The explanation methods by name. A method is imported when it is asked for, so that names are checked at once."""

from __future__ import annotations

import re
from collections import UserDict
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from antehoc_hf.explainers.base import Explainer


class _Explainers(UserDict[str, Any]):
    """Name → class; ours are written as `module.Class`."""

    def __getitem__(self, name: str) -> type[Explainer]:
        found = super().__getitem__(name)
        if isinstance(found, str):
            module, _, attribute = found.partition(".")
            self.data[name] = found = getattr(import_module(f"antehoc_hf.explainers.{module}"), attribute)
        return found  # type: ignore[no-any-return]


# A class of one's own takes part under any name: EXPLAINERS["mine"] = Mine.
EXPLAINERS = _Explainers(
    {
        "antehoc": "controls.AnteHoc",
        "grad-cam": "cam.GradCam",
        "grad-cam++": "cam.GradCamPlusPlus",
        "layer-cam": "cam.LayerCam",
        "hires-cam": "cam.HiResCam",
        "score-cam": "cam.ScoreCam",
        "integrated-grad-cam": "integrated_grad_cam.IntegratedGradCam",
        "sise": "sise.Sise",
        "ada-sise": "sise.AdaSise",
        "integrated-gradients": "integrated_gradients.IntegratedGradients",
        "rise": "rise.Rise",
        "leave-one-out": "patches.LeaveOneOut",
        "shapley-sampling": "patches.ShapleySampling",
        "kernel-shap": "patches.KernelShap",
        "coalition-regression": "coalition_regression.CoalitionRegression",
        "attention-rollout": "attention.AttentionRollout",
        "gradient-attention": "attention.GradientAttention",
        "constant": "controls.Constant",
        "random": "controls.Random",
        "center": "controls.Center",
        "sobel": "controls.Sobel",
    }
)


def check_explainer(name: str) -> None:
    """Raises a ValueError if there is no such method, with those that are spelled much like it, or all."""
    if not isinstance(name, str) or name not in EXPLAINERS:
        plain = {known.replace("-", ""): known for known in EXPLAINERS}
        word = re.sub(r"[^a-z+]", "", str(name).lower())
        near = [one for one in plain if word and word in one][:3] or get_close_matches(word, plain, n=3)
        near = [word] if word in plain else near
        hint = " or ".join(repr(plain[one]) for one in near)
        hint = f"did you mean {hint}?" if near else f"there are {', '.join(EXPLAINERS)}."
        raise ValueError(f"There is no explainer {name!r}: {hint}")


def load_explainer(name: str, model: nn.Module, **options: Any) -> Explainer:
    """The explanation method of that name for a model.

    Args:
        name (`str`): a key of `EXPLAINERS`.
        model: one of ours, a network of timm or torchvision, or any `…ForImageClassification` of transformers.
        options: those of the method, e.g. `layer="layer4"`, and of the model: `image_mean`, `image_std`,
            `problem_type`, see [`Explainer`].

    Raises:
        ValueError: if there is no such method, option or layer, or the model is none of these.
        ImportError: if the method needs a package that is not installed.
    """
    check_explainer(name)
    try:
        return EXPLAINERS[name](model, **options)
    except TypeError as error:
        unknown = [option for option in options if f"'{option}'" in str(error)]
        if not unknown:
            raise
        raise ValueError(f"The explainer {name!r} has no option {unknown[0]!r}.") from error
