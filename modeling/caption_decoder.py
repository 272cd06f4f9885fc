"""From a pooled feature to words: the LSTM that reads out what the backbone saw."""

from typing import Any

import torch
from torch import Tensor, nn

from .configuration_captions import IGNORED


class DecoderState:
    """The LSTM's memory after some words; transformers' `generate` carries it from step to step as its cache.

    Args:
        hidden, cell (`Tensor`): (1, B, H).
        length (`int`): how many words it has read.
    """

    is_compileable = False  # as transformers asks of a cache

    def __init__(self, hidden: Tensor, cell: Tensor, length: int = 0) -> None:
        self.hidden, self.cell, self.length = hidden, cell, length

    def get_seq_length(self) -> int:
        """How many words it has read."""
        return self.length

    def reorder_cache(self, rows: Tensor) -> None:
        """Beam search: row i goes on where row `rows[i]` was."""
        rows = rows.to(self.hidden.device)
        self.hidden, self.cell = self.hidden.index_select(1, rows), self.cell.index_select(1, rows)


class CaptionDecoder(nn.Module):
    """A one-layer LSTM over words; the image enters as its first state, or as a token before the first word.

    Source: Vinyals et al., "Show and Tell", CVPR 2015 (the image as first token); the paper names no more than "a
    simple CNN-based" network.

    Args:
        config (`AnteHocConfig`): its `vocab_size` and `decoder_*` options.
        num_features (`int`): C of the pooled feature.
    """

    def __init__(self, config: Any, num_features: int) -> None:
        super().__init__()
        embedding, hidden = config.decoder_embedding_size, config.decoder_hidden_size
        self.image_input = config.decoder_image_input
        if self.image_input == "state":
            self.image_to_hidden = nn.Linear(num_features, hidden)
            self.image_to_cell = nn.Linear(num_features, hidden)
        else:
            self.image_to_token = nn.Linear(num_features, embedding)
        self.embedding = nn.Embedding(config.vocab_size, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.dropout = nn.Dropout(config.decoder_dropout)
        self.output = nn.Linear(hidden, config.vocab_size)

    def start(self, features: Tensor) -> DecoderState:
        """The state before the first word, of pooled features (B, C)."""
        if self.image_input == "state":
            hidden = torch.tanh(self.image_to_hidden(features))
            return DecoderState(hidden.unsqueeze(0), self.image_to_cell(features).unsqueeze(0))
        _, (hidden, cell) = self.lstm(self.image_to_token(features).unsqueeze(1))
        return DecoderState(hidden, cell)

    def forward(self, token_ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Reads words one after the other.

        Args:
            token_ids (`Tensor`): (B, T), the words read.
            state (`DecoderState`): the memory before them; left as it is.

        Returns:
            Logits (B, T, V) of the word after each, and the memory after the last.
        """
        read, state = self.read(token_ids, state)
        return self.output(self.dropout(read)), state

    def read(self, token_ids: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """The LSTM's output (B, T, H) after each word, and the memory after the last."""
        words = self.dropout(self.embedding(token_ids))
        read, (hidden, cell) = self.lstm(words, (state.hidden, state.cell))
        return read, DecoderState(hidden, cell, state.length + token_ids.shape[1])

    @torch.no_grad()
    def greedy(
        self, state: DecoderState, bos: int, eos: int, never: list[int], steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The likeliest word after each word, without gradient and in the mode the decoder is in.

        Args:
            state (`DecoderState`): before the first word.
            bos, eos (`int`): first and last token.
            never (`list[int]`): tokens that are not said.
            steps (`int`): the most tokens, `eos` included.

        Returns:
            The words read (B, T), beginning with `bos`; their followers (B, T), -100 after `eos`; the logits
            (B, T, V) from which these were chosen. T is at most `steps`.
        """
        batch = state.hidden.shape[1]
        word = torch.full((batch, 1), bos, dtype=torch.long, device=state.hidden.device)
        running = torch.ones_like(word, dtype=torch.bool)
        barred = torch.tensor(never, dtype=torch.long, device=word.device)
        read, followers, logits = [], [], []
        for _ in range(steps):
            scores, state = self(word, state)
            read.append(word)
            word = scores.index_fill(2, barred, -torch.inf).argmax(dim=-1)
            followers.append(torch.where(running, word, IGNORED))
            logits.append(scores)
            running = running & (word != eos)
            if not bool(running.any()):
                break
        return torch.cat(read, dim=1), torch.cat(followers, dim=1), torch.cat(logits, dim=1)

    def own_caption(self, features: Tensor, config: Any, never: list[int]) -> dict[str, Tensor]:
        """What it says by itself of pooled features (B, C), without dropout: words to read, to say, and logits."""
        training = self.training
        self.eval()
        try:
            words, followers, logits = self.greedy(
                self.start(features.detach()),
                bos=config.bos_token_id,
                eos=config.eos_token_id,
                never=never,
                steps=config.max_caption_length - 1,
            )
        finally:
            self.train(training)
        read = words.masked_fill(followers == IGNORED, config.pad_token_id)
        return {"generated_input_ids": read, "generated_labels": followers, "generated_logits": logits}
