"""SENN: a self-explaining network, whose prediction is a sum of concepts weighted by relevances."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.utils.generic import can_return_tuple

from antehoc_hf.baselines.concept_autoencoder import ConceptDecoder, ConceptEncoder, reconstruction_target
from antehoc_hf.baselines.configuration import SennConfig
from antehoc_hf.baselines.modeling_base import ConceptModel
from antehoc_hf.baselines.outputs import SennOutput
from antehoc_hf.baselines.robustness import exact_directions, lacks_derivative, random_signs, robustness_penalty
from antehoc_hf.modeling.image_classification import classification_loss
from antehoc_hf.modeling.scaling import full_precision

_ACTIVATIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "none": lambda relevances: relevances}


class SennForImageClassification(ConceptModel):
    """f(x) = Σ_i θ_i(x) h_i(x): k concepts h from a small encoder, their relevances θ for K classes from the backbone.

    Alvarez-Melis, Jaakkola, NeurIPS 2018. The explanation of a prediction are its concepts and relevances; where in
    the image a concept lies, SENN does not say.
    """

    config_class = SennConfig
    weighted = ("reconstruction", "sparsity", "robustness")

    def __init__(self, config: SennConfig) -> None:
        super().__init__(config)
        self._build_backbone(num_outputs=config.num_concepts * self.num_labels)
        self.concept_encoder = ConceptEncoder(config.num_concepts, self.config.image_size)
        self.concept_decoder = ConceptDecoder(config.num_concepts, self.config.image_size)
        if self._penalty_is_wanted:  # a gradient of a gradient does not pass through what is computed again
            self.supports_gradient_checkpointing = False
        self._known_to_be_smooth = False
        self.post_init()

    @property
    def _penalty_is_wanted(self) -> bool:
        return self.config.robustness != "none" and self.config.robustness_weight > 0

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, output_reconstruction: bool = False
    ) -> SennOutput:
        """Scores of the classes with the concepts and relevances that they are the sum of, and with labels their loss.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W), of the configuration's size.
            labels (`Tensor`, *optional*): (B,) class indices. In training mode the loss then holds the robustness
                term; evaluations leave it out, for it needs gradients.
            output_reconstruction (`bool`): also return the decoder's images.

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes, or if the robustness term
                cannot be had of this backbone.
        """
        pixel_values = self._checked_pixels(pixel_values)
        penalised = labels is not None and self.training and torch.is_grad_enabled() and self._penalty_is_wanted
        if penalised:
            # Attention by kernels that have a second derivative.
            with full_precision(pixel_values), sdpa_kernel(SDPBackend.MATH):
                pixel_values = pixel_values.detach().to(self.dtype).requires_grad_()
                concepts, relevances = self._explain(pixel_values)
                robustness = self._robustness(pixel_values, concepts, relevances)
        else:
            concepts, relevances = self._explain(pixel_values)
            robustness = None
        logits = (concepts.unsqueeze(1) @ relevances).squeeze(1)
        wanted = labels is not None or output_reconstruction
        reconstruction = self.concept_decoder(concepts) if wanted else None
        parts: dict[str, Tensor] = {}
        if labels is not None:
            assert reconstruction is not None
            parts = self._loss_parts(pixel_values, labels, logits, concepts, reconstruction)
            if robustness is not None:
                parts["robustness_loss"] = robustness
        return SennOutput(
            loss=self._total(parts),
            logits=logits,
            concepts=concepts,
            relevances=relevances,
            reconstruction=reconstruction if output_reconstruction else None,
            **parts,
        )

    def _explain(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Concepts (B, k) and relevances (B, k, K)."""
        config = self.config
        concepts = self.concept_encoder(pixel_values)
        values = F.dropout(self.backbone(pixel_values), config.relevance_dropout, self.training)
        relevances = _ACTIVATIONS[config.relevance_activation](values)
        return concepts, relevances.unflatten(1, (config.num_concepts, self.num_labels))

    def _robustness(self, pixel_values: Tensor, concepts: Tensor, relevances: Tensor) -> Tensor:
        config = self.config
        directions = exact_directions if config.robustness == "exact" else random_signs
        penalty = robustness_penalty(
            pixel_values,
            concepts,
            relevances,
            directions(len(pixel_values), self.num_labels, relevances),
            output=config.robustness_output,
            norm=config.robustness_norm,
        )
        if not self._known_to_be_smooth and lacks_derivative(penalty):
            raise ValueError(
                f"The backbone {config.backbone!r} has a layer without a second derivative (a hard sigmoid, for one), "
                "which SENN's robustness term needs: set robustness='none' or choose another backbone."
            )
        self._known_to_be_smooth = True
        return penalty

    def _loss_parts(
        self, pixel_values: Tensor, labels: Tensor, logits: Tensor, concepts: Tensor, reconstruction: Tensor
    ) -> dict[str, Tensor]:
        size = concepts.float().abs().sum()
        target = reconstruction_target(pixel_values, self.config)
        return {
            "classification_loss": classification_loss(logits, labels, self.config),
            "reconstruction_loss": F.mse_loss(reconstruction.float(), target.float()),
            "sparsity_loss": size if self.config.sparsity_reduction == "sum" else size / len(concepts),
        }
