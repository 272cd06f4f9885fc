"""ONNX of a captioner: a graph from pixels to the decoder's first state and the map, another for a decoder's step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from antehoc_hf.modeling.caption_decoder import DecoderState

STATE = ("hidden", "cell")
ENCODER_OUTPUTS = (*STATE, "interpretation_map")
DECODER_INPUTS = ("token_ids", *STATE)
DECODER_OUTPUTS = ("logits", "next_hidden", "next_cell")
METADATA = ("bos_token_id", "eos_token_id", "pad_token_id", "max_caption_length")


class EncoderGraph(nn.Module):
    """`pixel_values` (B, 3, H, W) → `hidden` and `cell` (1, B, D), `interpretation_map` (B, 1, H, W) in [0, 1]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.model.encode(pixel_values)
        state = self.model.decoder.start(encoded.last_hidden_state.squeeze(1))
        return state.hidden, state.cell, encoded.interpretation_map


class DecoderGraph(nn.Module):
    """`token_ids` (B, 1), `hidden`, `cell` (1, B, D) → `logits` (B, V) of the next, `next_hidden`, `next_cell`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(self, token_ids: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, state = self.decoder(token_ids, DecoderState(hidden, cell))
        return logits[:, -1], state.hidden, state.cell


def decoder_path(path: Path) -> Path:
    """The decoder's file, next to the encoder's: `model.onnx` → `model-decoder.onnx`."""
    return path.with_name(f"{path.stem}-decoder{path.suffix}")


def decoder_example(model: Any, captions: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the decoder's graph."""
    size = model.config.decoder_hidden_size
    token_ids = torch.full((captions, 1), model.config.bos_token_id, dtype=torch.long, device=model.device)
    state = torch.zeros(1, captions, size, device=model.device, dtype=model.dtype)
    return token_ids, state, torch.zeros_like(state)
