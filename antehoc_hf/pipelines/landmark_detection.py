"""`pipeline("antehoc-landmark-detection")`: from images to points, with what the model looked at."""

from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from antehoc_hf.modeling.image_input import as_pil
from antehoc_hf.modeling.landmark_detection import AnteHocLandmarkOutput
from antehoc_hf.pipelines.images import ImagePipeline, map_array, open_image


class AnteHocLandmarkDetectionPipeline(ImagePipeline):
    """The points that a model finds in images, and the map of each image, from one pass of the backbone.

    ```python
    find = pipeline("antehoc-landmark-detection", model="folder or Hub name")
    find("face.jpg")["keypoints"]["nose_3"]  # (x, y)
    find(["one.jpg", "two.jpg"], batch_size=2)
    ```

    An image is a path, a URL, a Pillow image, the bytes of a file, or an array as the image processor takes it.

    Returns, for each image, a dictionary:
        keypoints (`dict[str, tuple[float, float]]`): name → x and y in pixels of the image as it was given, whole
            numbers being the centres of pixels; points without names are called "0", "1" and so on.
        map (`np.ndarray`): (H, W) float32 in [0, 1], of the processed image (resized, cropped).
        degenerate (`bool`): whether that map shows nothing.

    Raises:
        ValueError: if the model finds no points, or an image can't be read.
    """

    def check(self) -> None:
        if not hasattr(self.model, "num_landmarks"):
            raise ValueError(
                f"antehoc-landmark-detection needs an ante-hoc model of points, not {type(self.model).__name__}."
            )

    def preprocess(self, image: object, timeout: float | None = None) -> BatchFeature:  # type: ignore[override]
        """`pixel_values` (1, 3, H, W), and `target_size` (1, 2), height and width of the image."""
        opened = as_pil(open_image(image, timeout))
        inputs = self.processed(opened)
        inputs["target_size"] = torch.tensor([[opened.height, opened.width]])
        return inputs

    def _forward(self, model_inputs: dict[str, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        outputs = self.model(model_inputs["pixel_values"])
        kept = {name: outputs[name] for name in ("landmarks", "interpretation_map", "degenerate")}
        return {**kept, "target_size": model_inputs["target_size"]}

    def postprocess(self, model_outputs: dict[str, Tensor]) -> dict[str, object]:  # type: ignore[override]
        """One image's points and map."""
        processor: Any = self.image_processor
        outputs = AnteHocLandmarkOutput(landmarks=model_outputs["landmarks"])
        sizes = model_outputs["target_size"].tolist()
        found = processor.post_process_keypoint_detection(outputs, sizes)[0]["keypoints"].tolist()
        names = self.model.config.landmark_names or [str(point) for point in range(len(found))]
        return {
            "keypoints": {name: (x, y) for name, (x, y) in zip(names, found, strict=True)},
            "map": map_array(model_outputs["interpretation_map"]),
            "degenerate": bool(model_outputs["degenerate"][0]),
        }
