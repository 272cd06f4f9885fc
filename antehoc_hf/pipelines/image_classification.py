"""`pipeline("antehoc-image-classification")`: from images to classes, with what the model looked at."""

from typing import Any

from PIL import Image
from torch import Tensor

from antehoc_hf.modeling.map_head import is_whole
from antehoc_hf.pipelines.images import ImagePipeline, Options, map_array


class AnteHocImageClassificationPipeline(ImagePipeline):
    """The most likely classes of images, and the map of each image, from one forward pass.

    ```python
    see = pipeline("antehoc-image-classification", model="folder or Hub name")
    found = see("photo.jpg")
    found["label"], found["score"]
    found["overlay"].save("looked-at.png")
    see(["one.jpg", "two.jpg"], batch_size=2, top_k=3)
    ```

    An image is a path, a URL, a Pillow image, the bytes of a file, or an array as the image processor takes it.

    Returns, for each image, a dictionary:
        label (`str`), score (`float`): the most likely class and its probability, in [0, 1]. Of a model of several
            labels an image each class has a probability of its own; of a regression the score is the number itself.
        top (`list[dict]`): the `top_k` (5) classes, the most likely first, each `{"label", "score"}`; those of a
            regression in their own order.
        map (`np.ndarray`): (H, W) float32 in [0, 1], of the processed image (resized, cropped).
        overlay (`PIL.Image.Image`): that map in colour over the processed image in grey.
        degenerate (`bool`): whether the map shows nothing.

    Raises:
        ValueError: if the model names no classes, top_k is below 1, or an image can't be read.
    """

    def check(self) -> None:
        if "logits" not in getattr(self.model, "onnx_outputs", ()):
            raise ValueError(
                f"antehoc-image-classification needs an ante-hoc classifier, not {type(self.model).__name__}; any "
                'other goes through pipeline("image-classification").'
            )

    def _sanitize_parameters(  # type: ignore[override]
        self, top_k: int | None = None, timeout: float | None = None
    ) -> tuple[Options, Options, Options]:
        if top_k is not None and not (is_whole(top_k) and top_k >= 1):
            raise ValueError(
                f"top_k={top_k!r} must be a whole number of at least 1: it is the number of classes returned."
            )
        before, during, _ = super()._sanitize_parameters(timeout)
        return before, during, ({} if top_k is None else {"top_k": top_k})

    def _forward(self, model_inputs: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        outputs = self.model(model_inputs["pixel_values"])
        kept = {name: outputs[name] for name in ("logits", "interpretation_map", "degenerate")}
        return {**kept, "pixel_values": model_inputs["pixel_values"]}

    def postprocess(self, model_outputs: dict[str, Tensor], top_k: int = 5) -> dict[str, object]:  # type: ignore[override]
        """One image's classes, map and overlay."""
        # Not above: matplotlib takes its time, and every import of antehoc_hf registers this pipeline.
        from antehoc_hf.visualization.images import denormalise, overlay

        processor: Any = self.image_processor
        top = self._top(model_outputs["logits"][0].float().cpu(), top_k)
        picture = denormalise(model_outputs["pixel_values"], processor.image_mean, processor.image_std)[0]
        map_ = map_array(model_outputs["interpretation_map"])
        return {
            **top[0],
            "top": top,
            "map": map_,
            "overlay": Image.fromarray(overlay(picture, map_)),
            "degenerate": bool(model_outputs["degenerate"][0]),
        }

    def _top(self, logits: Tensor, top_k: int) -> list[dict[str, object]]:
        config: Any = self.model.config
        kind = config.problem_type
        scores = logits
        if kind == "multi_label_classification" or (kind != "regression" and len(scores) == 1):
            scores = logits.sigmoid()
        elif kind != "regression":
            scores = logits.softmax(dim=0)
        order = list(range(len(scores))) if kind == "regression" else scores.argsort(descending=True).tolist()
        return [{"label": config.id2label[index], "score": float(scores[index])} for index in order[:top_k]]
