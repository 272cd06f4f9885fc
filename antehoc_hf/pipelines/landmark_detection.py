"""`pipeline("antehoc-landmark-detection")`: from images to points, with what the model looked at."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from transformers import Pipeline

from antehoc_hf.modeling.image_input import as_pil
from antehoc_hf.modeling.landmark_detection import AnteHocLandmarkOutput
from antehoc_hf.pipelines.images import map_array, open_image


class AnteHocLandmarkDetectionPipeline(Pipeline):
    """
    The points that a model finds in images, and the map of each image, from one pass of the backbone.

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

    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = True  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "num_landmarks"):
            raise ValueError(
                f"antehoc-landmark-detection needs an ante-hoc model of points, not {type(self.model).__name__}."
            )

    def _sanitize_parameters(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return ({} if timeout is None else {"timeout": timeout}), {}, {}

    def preprocess(self, image: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
        """`pixel_values` (1, 3, H, W), and `target_size` (1, 2), height and width of the image."""
        assert self.image_processor is not None
        opened: Image.Image = as_pil(open_image(image, timeout))
        inputs = self.image_processor(opened, return_tensors="pt").to(self.dtype)
        inputs["target_size"] = torch.tensor([[opened.height, opened.width]])
        return inputs

    def _forward(self, model_inputs: Any) -> Any:  # type: ignore[override]
        outputs = self.model(model_inputs["pixel_values"])
        kept = {name: outputs[name] for name in ("landmarks", "interpretation_map", "degenerate")}
        return {**kept, "target_size": model_inputs["target_size"]}

    def postprocess(self, model_outputs: Any) -> dict[str, Any]:  # type: ignore[override]
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
