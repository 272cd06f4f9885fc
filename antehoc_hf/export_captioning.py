"""ONNX of a captioner: a graph from pixels to the decoder's first state and the map, another for a decoder's step;
where each word has a map of its own, a third from what the first has kept and the words to the maps.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.modeling.caption_decoder import DecoderState

STATE = ("hidden", "cell")
DECODER_INPUTS = ("token_ids", *STATE)
DECODER_OUTPUTS = ("logits", "next_hidden", "next_cell")
MAP_INPUTS = ("token_ids", *STATE, "tap_values")
MAP_OUTPUTS = ("interpretation_map", "word_maps")
METADATA = ("bos_token_id", "eos_token_id", "pad_token_id", "max_caption_length")


class EncoderGraph(nn.Module):
    """`pixel_values` (B, 3, H, W) → `hidden` and `cell` (1, B, D), and `interpretation_map` (B, 1, H, W) in [0, 1] or,
    where each word has a map of its own, the `tap_values`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.outputs = (*STATE, "tap_values" if model.map_head.per_target else "interpretation_map")

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.model.encode(pixel_values)
        state = self.model.decoder.start(encoded.last_hidden_state.squeeze(1))
        return state.hidden, state.cell, encoded[self.outputs[-1]]


class DecoderGraph(nn.Module):
    """`token_ids` (B, 1), `hidden`, `cell` (1, B, D) → `logits` (B, V) of the next, `next_hidden`, `next_cell`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, token_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, state = self.decoder(token_ids, DecoderState(hidden, cell))
        return logits[:, -1], state.hidden, state.cell


class MapGraph(nn.Module):
    """`token_ids` (B, T) of captions, beginning with the start token and padded to the longest caption, `hidden`,
    `cell` and `tap_values` of the encoder → `interpretation_map` (B, 1, H, W), `word_maps` (B, T - 1, 1, H, W), in [0,
    1].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, token_ids: Tensor, hidden: Tensor, cell: Tensor, tap_values: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self.model.config.image_size
        encoded = {"tap_values": tap_values, "state": DecoderState(hidden, cell)}
        explained = self.model.explain_words(encoded, token_ids, (height, width))
        return explained.interpretation_map, self.model.maps_of_words(encoded, token_ids, (height, width))


def map_path(path: Path) -> Path:
    """The maps' file, next to the encoder's: `model.onnx` → `model-maps.onnx`."""
    return path.with_name(f"{path.stem}-maps{path.suffix}")


def map_example(model: Any, tap_values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs of the maps' graph, for the images of which these are the `tap_values`."""
    start, *state = decoder_example(model, len(tap_values))
    token_ids = torch.full(
        (len(tap_values), model.config.max_caption_length), model.config.eos_token_id, device=model.device
    )
    token_ids[:, :1] = start
    return token_ids, state[0], state[1], tap_values


def decoder_path(path: Path) -> Path:
    """The decoder's file, next to the encoder's: `model.onnx` → `model-decoder.onnx`."""
    return path.with_name(f"{path.stem}-decoder{path.suffix}")


def decoder_example(model: Any, captions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the decoder's graph."""
    size = model.config.decoder_hidden_size
    token_ids = torch.full((captions, 1), model.config.bos_token_id, dtype=torch.long, device=model.device)
    state = torch.zeros(1, captions, size, device=model.device, dtype=model.dtype)
    return token_ids, state, torch.zeros_like(state)
