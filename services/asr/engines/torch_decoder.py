"""Whisper's decoder, one pass at a time, for rows of a batch that stand at different positions.

A row's keys and values live as long as a round: after new sound all text is another one's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 -- torch's own name for it

from services.asr.engines.alignment_heads import Head
from services.asr.engines.torch_model import Modules

_GROWTH = 64
"""Text positions that are made room for at a time."""


@dataclass(slots=True)
class Sound:
    """What the rows of a batch heard, as the decoder's layers look at it."""

    keys: list[torch.Tensor]
    """Per layer (rows, heads, frames, head size)."""
    values: list[torch.Tensor]
    heard: torch.Tensor | None
    """(rows, 1, 1, frames) bool: frames that a row has; None: all have all."""
    aligned: list[torch.Tensor]
    """Per layer with alignment heads (rows, those heads, frames, head size): their keys."""

    def select(self, rows: torch.Tensor) -> "Sound":
        """These rows alone."""
        return Sound(
            [keys[rows] for keys in self.keys],
            [values[rows] for values in self.values],
            None if self.heard is None else self.heard[rows],
            [keys[rows] for keys in self.aligned],
        )


@dataclass(slots=True)
class Text:
    """What the rows of a batch have said, as the decoder's layers look at it."""

    keys: list[torch.Tensor]
    """Per layer (rows, heads, room, head size); zero where nothing was said yet."""
    values: list[torch.Tensor]

    def select(self, rows: torch.Tensor) -> "Text":
        """These rows alone."""
        return Text([keys[rows] for keys in self.keys], [values[rows] for values in self.values])

    def grow(self, room: int) -> None:
        """Make room for so many positions, and some more."""
        lacking = room - self.keys[0].shape[2]
        if lacking > 0:
            more = (0, 0, 0, lacking + _GROWTH)
            self.keys = [F.pad(keys, more) for keys in self.keys]
            self.values = [F.pad(values, more) for values in self.values]


class Decoder:
    """The layers, and the alignment heads among them."""

    def __init__(self, model: Modules, alignment_heads: Sequence[Head]) -> None:
        self._decoder = model.model.decoder
        self._projection = model.proj_out
        self._num_heads: int = model.config.decoder_attention_heads
        self._head_size: int = model.config.d_model // self._num_heads
        self.dtype: torch.dtype = model.proj_out.weight.dtype
        self.device: torch.device = model.proj_out.weight.device
        self._picked: dict[int, list[int]] = {}
        for layer, head in sorted(alignment_heads):
            self._picked.setdefault(layer, []).append(head)

    def hear(self, states: Sequence[torch.Tensor]) -> Sound:
        """Prepare encoder states, each (its frames, d)."""
        lengths = torch.tensor([len(row) for row in states], device=self.device)
        padded = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
        heard = torch.arange(padded.shape[1], device=self.device) < lengths[:, None]
        attentions = [layer.encoder_attn for layer in self._decoder.layers]
        keys = [self._split(attention.k_proj(padded)) for attention in attentions]
        return Sound(
            keys,
            [self._split(attention.v_proj(padded)) for attention in attentions],
            None if len({len(row) for row in states}) == 1 else heard[:, None, None],
            [keys[layer][:, heads] for layer, heads in self._picked.items()],
        )

    def begin(self, num_rows: int) -> Text:
        """Nothing said yet."""
        shape = num_rows, self._num_heads, 0, self._head_size
        empty = [torch.zeros(shape, dtype=self.dtype, device=self.device)]
        return Text(empty * len(self._decoder.layers), empty * len(self._decoder.layers))

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, end: int, text: Text, sound: Sound
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Say tokens.

        What a row says behind its own tokens, to be as long as the others, is written over later.

        Args:
            ids: (rows, tokens).
            positions: (rows, tokens) where each stands in its row.
            end: The position after the last of them.
            text: What was said before; it learns what is said now.
            sound: What was heard.

        Returns:
            (rows, tokens, d) the last states; and per layer with alignment heads their queries,
            (rows, heads, tokens, head size).

        """
        dec = self._decoder
        rows = torch.arange(len(ids), device=self.device)[:, None]
        text.grow(end)
        seen = (torch.arange(end, device=self.device) <= positions[..., None])[:, None]
        # What only pads a row may stand beyond the last position.
        places = positions.clamp(max=len(dec.embed_positions.weight) - 1)
        x = dec.embed_tokens(ids) + dec.embed_positions.weight[places]
        queries = []
        for number, layer in enumerate(dec.layers):
            attention, y = layer.self_attn, layer.self_attn_layer_norm(x)
            keys, values = text.keys[number], text.values[number]
            shape = (*ids.shape, self._num_heads, self._head_size)
            keys[rows, :, positions] = attention.k_proj(y).view(shape)
            values[rows, :, positions] = attention.v_proj(y).view(shape)
            x = x + self._attend(
                attention,
                self._split(attention.q_proj(y)),
                keys[:, :, :end],
                values[:, :, :end],
                seen,
            )
            attention = layer.encoder_attn
            query = self._split(attention.q_proj(layer.encoder_attn_layer_norm(x)))
            if number in self._picked:
                queries.append(query[:, self._picked[number]])
            x = x + self._attend(
                attention, query, sound.keys[number], sound.values[number], sound.heard
            )
            x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
        return dec.layer_norm(x), queries

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(n, d) -> (n, vocabulary) float32."""
        logits: torch.Tensor = self._projection(states).float()
        return logits

    def scores(self, queries: Sequence[torch.Tensor], keys: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the alignment heads look at.

        Args:
            queries: Per layer (rows, heads, tokens, head size), as they were returned.
            keys: Per layer (rows, heads, frames, head size): ``Sound.aligned``, or part of it.

        Returns:
            (rows, heads, tokens, frames) float32, before softmax.

        """
        found = [q @ k.transpose(-1, -2) for q, k in zip(queries, keys, strict=True)]
        return torch.cat(found, 1).float() * self._head_size**-0.5

    def _attend(
        self,
        attention: Modules,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        rows, _, tokens, _ = found.shape
        projected: torch.Tensor = attention.out_proj(
            found.transpose(1, 2).reshape(rows, tokens, -1)
        )
        return projected

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, n, d) -> (rows, heads, n, head size)."""
        split = states.view(*states.shape[:2], self._num_heads, self._head_size).transpose(1, 2)
        return split.contiguous()
