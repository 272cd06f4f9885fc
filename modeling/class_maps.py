"""What models with a map for each class have in common: from the taps and the logits to the map of a class."""

from typing import Any

import torch
from torch import Tensor, nn

from .attention_maps import full_precision
from .contributions import class_map, efficient, of_class, scaled_vectors
from .outputs import AnteHocOutput


class ClassMaps:
    """To be inherited beside `AnteHocPreTrainedModel` by models whose backbone has its classifier."""

    config: Any
    backbone: Any
    weight_network: nn.Module

    def interpretation(self, pixel_values: Tensor, target: Tensor | int | None = None) -> AnteHocOutput:
        """
        The map of normalised images (B, 3, H, W) alone.

        Args:
            pixel_values (`Tensor`): normalised images, (B, 3, H, W).
            target (`int` or `Tensor`, *optional*): the class that is explained, one for all images or (B,); None: the
                most likely one. With class-conditional maps only.

        Raises:
            ValueError: if there is no such class, or the model's map depends on none.
        """
        model: Any = self
        if not model.class_conditional:
            if target is not None:
                raise ValueError(
                    f"The map of weight_network={self.config.weight_network!r} depends on no class: leave target out, "
                    "or train a model with weight_network='contributions'."
                )
            return super().interpretation(pixel_values)  # type: ignore[misc, no-any-return]
        logits, features = self._logits_and_features(pixel_values)
        if target is None:
            return self._class_maps(logits, features, pixel_values)
        classes, num_labels = torch.as_tensor(target, device=logits.device), logits.shape[1]
        known = not classes.is_floating_point() and classes.shape in (torch.Size(), logits.shape[:1])
        if not known or bool(((classes < 0) | (classes >= num_labels)).any()):
            raise ValueError(
                f"target must be a class, 0…{num_labels - 1}, or one for each of the {len(logits)} images, not "
                f"{target!r}."
            )
        return self._class_maps(logits, features, pixel_values, classes.long().expand(len(logits)))

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """(B, K) float32: softmax of the logits, or sigmoid for several labels an image."""
        several = self.config.problem_type == "multi_label_classification"
        return logits.float().sigmoid() if several else logits.float().softmax(dim=1)

    def _logits_and_features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """One pass of the backbone: logits (B, K), and what the weight network sees, (B, C, g, w) float32."""
        model: Any = self
        model._check_pixels(pixel_values)
        logits, taps = model._run_backbone(pixel_values, lambda: self.backbone(pixel_values))
        return logits, torch.cat(taps, dim=1)

    def _contributions(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        """(B, K, g, w) float32, or of one class an image, (B, 1, g, w), before their sum is fixed."""
        network: Any = self.weight_network
        dtype = next(network.parameters()).dtype
        if network.class_vectors is not None:
            vectors = network.class_vectors if classes is None else network.class_vectors[classes]
        else:  # nothing here learns from the second pass
            weight = self.backbone.get_classifier().weight.detach().flatten(1)
            exclusive = self.config.problem_type != "multi_label_classification"
            vectors = scaled_vectors(weight, exclusive, classes).to(dtype)
        return network(features.to(dtype), vectors if classes is None else vectors.unsqueeze(1))  # type: ignore[no-any-return]

    def _class_maps(
        self,
        logits: Tensor,
        features: Tensor,
        pixel_values: Tensor,
        classes: Tensor | None = None,
        of_all_classes: bool = True,
    ) -> AnteHocOutput:
        """The map of these classes, or of the most likely ones; and, if asked for, the contributions to all."""
        classes = logits.argmax(dim=1) if classes is None else classes
        contributions = self._contributions(features, None if of_all_classes else classes)
        with full_precision(pixel_values):
            to_share = self.class_probabilities(logits.detach()) - self.weight_network.nothing.float()  # type: ignore[operator]
            if not of_all_classes:
                to_share = to_share.gather(1, classes[:, None])
            contributions = efficient(contributions, to_share)
            shown = of_class(contributions, classes) if of_all_classes else contributions
            map_, degenerate = class_map(shown, (pixel_values.shape[-2], pixel_values.shape[-1]))
        return AnteHocOutput(
            interpretation_map=map_,
            degenerate=degenerate,
            contributions=contributions if of_all_classes else None,
        )
