"""The plain timm network: what the others must be compared with first."""

from torch import Tensor
from transformers.utils.generic import can_return_tuple

from antehoc_hf.baselines.configuration import PlainConfig
from antehoc_hf.baselines.modeling_base import BaselineForImageClassification
from antehoc_hf.baselines.outputs import PlainOutput
from antehoc_hf.modeling.image_classification import classification_loss


class PlainForImageClassification(BaselineForImageClassification):
    """A timm network with its own head and nothing else; of the same seed it starts, and trains, as ours does."""

    config_class = PlainConfig

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config)
        self._build_backbone(num_outputs=self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> PlainOutput:
        """Scores of the classes and, with labels, their loss.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            labels (`Tensor`, *optional*): (B,) class indices; (B, num_labels) of 0 and 1 for several labels an image;
                (B,) or (B, num_labels) numbers for regression.

        Raises:
            ValueError: if the images have a wrong shape or a label is none of the classes.
        """
        pixel_values = self._checked_pixels(pixel_values)
        logits = self.backbone(pixel_values)
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return PlainOutput(loss=loss, logits=logits)
