"""What the baselines return. The parts of a loss are unweighted scalars whose names end in `_loss`."""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class PlainOutput(ModelOutput):
    """Output of [`PlainForImageClassification`].

    Args:
        loss (`Tensor`, *optional*): a scalar, if labels were given.
        logits (`Tensor`): (B, K).
    """

    loss: Tensor | None = None
    logits: Tensor | None = None


@dataclass
class _ConceptOutput(PlainOutput):
    concepts: Tensor | None = None
    reconstruction: Tensor | None = None
    classification_loss: Tensor | None = None
    reconstruction_loss: Tensor | None = None
    sparsity_loss: Tensor | None = None


@dataclass
class SennOutput(_ConceptOutput):
    """Output of [`SennForImageClassification`].

    Args:
        loss: as in [`PlainOutput`].
        logits (`Tensor`): (B, K), the sum over concepts of relevance times concept.
        concepts (`Tensor`): (B, k), of any sign.
        relevances (`Tensor`): (B, k, K), of each concept for each class; in [-1, 1] after a tanh.
        reconstruction (`Tensor`, *optional*): (B, 3, H, W) in [-1, 1], if asked for.
        classification_loss, reconstruction_loss, sparsity_loss (`Tensor`, *optional*): parts of the loss.
        robustness_loss (`Tensor`, *optional*): in training mode, where gradients are on.
    """

    relevances: Tensor | None = None
    robustness_loss: Tensor | None = None


@dataclass
class CbahOutput(_ConceptOutput):
    """Output of [`CbahForImageClassification`].

    Args:
        loss, reconstruction: as in [`SennOutput`].
        logits (`Tensor`): (B, K), the backbone's own head's: the model's prediction.
        concept_logits (`Tensor`): (B, K), what the concepts alone predict.
        concepts (`Tensor`): (B, k).
        classification_loss, reconstruction_loss, fidelity_loss, sparsity_loss, rotation_loss (`Tensor`, *optional*):
            parts of the loss; those of weight 0 are not computed, and rotation in training mode only.
    """

    concept_logits: Tensor | None = None
    fidelity_loss: Tensor | None = None
    rotation_loss: Tensor | None = None
