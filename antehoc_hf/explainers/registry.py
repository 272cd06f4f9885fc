"""The explanation methods by name."""

from difflib import get_close_matches
from typing import Any

from torch import nn

from antehoc_hf.explainers.base import Explainer
from antehoc_hf.explainers.cam import GradCam, GradCamPlusPlus, HiResCam, LayerCam, ScoreCam
from antehoc_hf.explainers.coalition_regression import CoalitionRegression
from antehoc_hf.explainers.controls import AnteHoc, Center, Constant, Random, Sobel
from antehoc_hf.explainers.integrated_grad_cam import IntegratedGradCam
from antehoc_hf.explainers.integrated_gradients import IntegratedGradients
from antehoc_hf.explainers.patches import KernelShap, LeaveOneOut, ShapleySampling
from antehoc_hf.explainers.rise import Rise
from antehoc_hf.explainers.sise import AdaSise, Sise

# A class of one's own takes part under any name: EXPLAINERS["mine"] = Mine.
EXPLAINERS: dict[str, type[Explainer]] = {
    explainer.name: explainer
    for explainer in (
        *(AnteHoc, GradCam, GradCamPlusPlus, LayerCam, HiResCam, ScoreCam, IntegratedGradCam, Sise, AdaSise),
        *(IntegratedGradients, Rise, LeaveOneOut, ShapleySampling, KernelShap, CoalitionRegression),
        *(Constant, Random, Center, Sobel),
    )
}


def check_explainer(name: str) -> None:
    """Raises a ValueError if there is no such method."""
    if not isinstance(name, str) or name not in EXPLAINERS:
        near = get_close_matches(str(name), EXPLAINERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(EXPLAINERS)}."
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
