"""`pipeline("antehoc-image-captioning")`: from images to captions, with what the model looked at."""

from typing import Any

from torch import Tensor

from antehoc_hf.modeling.configuration_captions import check_tokenizer
from antehoc_hf.pipelines.images import ImagePipeline, Options, map_array


class AnteHocImageCaptioningPipeline(ImagePipeline):
    """Captions, their probability and the map of each image, from one pass of the backbone.

    ```python
    describe = pipeline("antehoc-image-captioning", model="folder or Hub name")
    describe("photo.jpg")["generated_text"]
    describe(["one.jpg", "two.jpg"], batch_size=2, num_beams=3, output_word_maps=True)
    ```

    An image is a path, a URL, a Pillow image, the bytes of a file, or an array as the image processor takes it.

    Returns, for each image, a dictionary:
        generated_text (`str`): the caption.
        probability (`float`): of the caption, in [0, 1], length-normalised: the geometric mean of its words'.
        map (`np.ndarray`): (H, W) float32 in [0, 1], of the processed image (resized, cropped), for the whole caption.
        degenerate (`bool`): whether that map shows nothing.
        word_maps (`list[dict]`): with `output_word_maps=True`, for each word `{"word", "probability", "map"}`.

    Raises:
        ValueError: if the model writes no captions, the tokenizer is another model's, or an image can't be read.
    """

    _load_tokenizer = True  # type: ignore[assignment]

    def check(self) -> None:
        if not callable(getattr(self.model, "caption", None)):
            raise ValueError(f"antehoc-image-captioning needs an ante-hoc captioner, not {type(self.model).__name__}.")
        check_tokenizer(self.tokenizer, self.model.config)

    def _sanitize_parameters(  # type: ignore[override]
        self, output_word_maps: bool | None = None, timeout: float | None = None, **generate_options: object
    ) -> tuple[Options, Options, Options]:
        if generate_options.get("num_return_sequences", 1) != 1:
            raise ValueError("The pipeline gives one caption an image: use model.caption for num_return_sequences.")
        before, _, after = super()._sanitize_parameters(timeout)
        words = {} if output_word_maps is None else {"output_word_maps": output_word_maps}
        return before, {**generate_options, **words}, after

    def _forward(self, model_inputs: dict[str, Tensor], **options: object) -> Any:  # type: ignore[override]
        model: Any = self.model
        return model.caption(model_inputs["pixel_values"], **options)

    def postprocess(self, model_outputs: Any) -> dict[str, object]:  # type: ignore[override]
        """One image's caption and maps."""
        assert self.tokenizer is not None
        sequence = model_outputs["sequences"][0]
        result: dict[str, object] = {
            "generated_text": self.tokenizer.decode(sequence, skip_special_tokens=True),
            "probability": float(model_outputs["probability"][0]),
            "map": map_array(model_outputs["interpretation_map"]),
            "degenerate": bool(model_outputs["degenerate"][0]),
        }
        maps = model_outputs.get("word_maps")
        if maps is not None:
            result["word_maps"] = [
                {"word": word, "probability": float(said.exp()), "map": map_[0].float().cpu().numpy()}
                for word, index, said, map_ in zip(
                    self.tokenizer.convert_ids_to_tokens(sequence[1:].tolist()),
                    sequence[1:].tolist(),
                    model_outputs["log_probabilities"][0],
                    maps[0],
                    strict=True,
                )
                if index not in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
            ]
        return result
