"""Models to compare ours with: self-explaining networks (SENN), CBAH, and the plain timm network."""

from antehoc_hf.baselines.modeling_base import BaselineForImageClassification
from antehoc_hf.baselines.modeling_cbah import CbahForImageClassification
from antehoc_hf.baselines.modeling_plain import PlainForImageClassification
from antehoc_hf.baselines.modeling_senn import SennForImageClassification

BASELINES: dict[str, type[BaselineForImageClassification]] = {
    "plain": PlainForImageClassification,
    "senn": SennForImageClassification,
    "cbah": CbahForImageClassification,
}
"""The models by the names of the command line."""

__all__ = ["BASELINES", "CbahForImageClassification", "PlainForImageClassification", "SennForImageClassification"]
