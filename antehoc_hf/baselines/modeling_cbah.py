"""CBAH: a classifier with a branch of concepts that is to predict the same and to hold the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import can_return_tuple

from antehoc_hf.baselines.concept_autoencoder import ConceptDecoder, reconstruction_target
from antehoc_hf.baselines.configuration import CbahConfig
from antehoc_hf.baselines.modeling_base import ConceptModel
from antehoc_hf.baselines.outputs import CbahOutput
from antehoc_hf.modeling.image_classification import classification_loss


class CbahForImageClassification(ConceptModel):
    """The backbone with its own head, and next to the head k concepts of its feature: one linear layer each to the
    concepts and from them to the classes, and a decoder from the concepts to the image.

    Sarkar, Vijaykeerthy, Sarkar, Balasubramanian, "A Framework for Learning Ante-hoc Explainable Models via
    Concepts", CVPR 2022. The prediction is the head's; where in the image a concept lies, CBAH does not say.
    """

    config_class = CbahConfig
    weighted = ("reconstruction", "fidelity", "sparsity", "rotation")

    def __init__(self, config: CbahConfig) -> None:
        super().__init__(config)
        self._build_backbone(num_outputs=self.num_labels)
        head = self.backbone.get_classifier()
        if not isinstance(head, nn.Linear):
            raise ValueError(
                f"The backbone {config.backbone!r} ends in {type(head).__name__} where CBAH needs one linear layer, "
                "whose input the concepts are made from: choose another backbone, e.g. 'resnet18'."
            )
        # Not from the global stream of random numbers: backbone and head start and train as the plain network.
        with torch.random.fork_rng():
            self.concept_layer = nn.Linear(head.in_features, config.num_concepts)
            self.concept_classifier = nn.Linear(config.num_concepts, self.num_labels)
            self.concept_decoder = ConceptDecoder(config.num_concepts, self.config.image_size)
            self.rotation_classifier = nn.Linear(config.num_concepts, 4) if config.rotation_weight > 0 else None
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_reconstruction: bool = False
    ) -> CbahOutput:
        """Of normalised images (B, 3, H, W) and class indices (B,), see [`SennForImageClassification.forward`].

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes.
        """
        pixel_values = self._checked_pixels(pixel_values)
        feature = self._feature(pixel_values)
        logits = self.backbone.get_classifier()(feature)
        concepts = self._concepts(feature)
        concept_logits = self.concept_classifier(concepts)
        learned = labels is not None and self.config.reconstruction_weight > 0
        reconstruction = self.concept_decoder(concepts) if learned or output_reconstruction else None
        parts: dict[str, Tensor] = {}
        if labels is not None:
            parts["classification_loss"] = classification_loss(logits, labels, self.config)
            parts |= self._concept_losses(pixel_values, logits, concept_logits, concepts, reconstruction)
        return CbahOutput(
            loss=self._total(parts),
            logits=logits,
            concept_logits=concept_logits,
            concepts=concepts,
            reconstruction=reconstruction if output_reconstruction else None,
            **parts,
        )

    def _feature(self, pixel_values: Tensor) -> Tensor:
        """What the backbone's own head reads, (B, C)."""
        return self.backbone.forward_head(self.backbone.forward_features(pixel_values), pre_logits=True)

    def _concepts(self, feature: Tensor) -> Tensor:
        concepts = self.concept_layer(feature)
        return F.relu(concepts) if self.config.concept_activation == "relu" else concepts

    def _concept_losses(
        self,
        pixel_values: Tensor,
        logits: Tensor,
        concept_logits: Tensor,
        concepts: Tensor,
        reconstruction: Tensor | None,
    ) -> dict[str, Tensor]:
        """The terms that have a weight: what weighs nothing is not computed."""
        config, parts = self.config, {}
        if config.reconstruction_weight > 0 and reconstruction is not None:
            target = reconstruction_target(pixel_values, config)
            parts["reconstruction_loss"] = F.mse_loss(reconstruction.float(), target.float())
        if config.fidelity_weight > 0:
            parts["fidelity_loss"] = fidelity_loss(logits, concept_logits, config.fidelity)
        if config.sparsity_weight > 0:
            parts["sparsity_loss"] = concepts.float().abs().sum() / len(concepts)
        if config.rotation_weight > 0 and self.training:
            parts["rotation_loss"] = self._rotation_loss(pixel_values)
        return parts

    def _rotation_loss(self, pixel_values: Tensor) -> Tensor:
        """Cross-entropy of the quarter turn, 0 to 3 and drawn for each image, predicted from the concepts."""
        assert self.rotation_classifier is not None
        turns = torch.randint(0, 4, (len(pixel_values),), device=pixel_values.device)
        every = torch.stack([torch.rot90(pixel_values, turn, (2, 3)) for turn in range(4)])
        turned = every[turns, torch.arange(len(turns), device=turns.device)]
        return F.cross_entropy(self.rotation_classifier(self._concepts(self._feature(turned))), turns)


def fidelity_loss(logits: Tensor, concept_logits: Tensor, kind: str = "kl") -> Tensor:
    """How far the concepts' prediction is from the head's. Nothing of it reaches the head through `logits`.

    Args:
        logits (`Tensor`): (B, K), the head's.
        concept_logits (`Tensor`): (B, K), the concepts'.
        kind (`str`): `"kl"`: KL(softmax(logits) ‖ softmax(concept_logits)), a mean over the images. `"mse_logits"`:
            mean squared difference. `"authors_code"`: mean squared difference of `logits` and the *log-softmax* of
            `concept_logits`, two quantities of different kinds, as the released code has it.

    Returns:
        `Tensor`: a scalar.
    """
    target, concept_logits = logits.detach().float(), concept_logits.float()
    if kind == "mse_logits":
        return F.mse_loss(concept_logits, target)
    log_probabilities = concept_logits.log_softmax(dim=1)
    if kind == "authors_code":
        return F.mse_loss(log_probabilities, target)
    return F.kl_div(log_probabilities, target.log_softmax(dim=1), reduction="batchmean", log_target=True)
