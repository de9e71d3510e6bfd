"""Whisper's decoder on ONNX Runtime: many tokens of many rows in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.asr.engines.onnx_graph import sound_graph, text_graph, words_graph
from services.asr.engines.whisper_checkpoint import EMBEDDINGS, Checkpoint
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.onnx_session import ERRORS, open_session

_POSITIONS = "model.decoder.embed_positions.weight"
_UNSEEN = np.float32(-1e9)
"""Added to attention; finite, so that a row of nothing but these has a softmax."""


@dataclass(slots=True)
class Text:
    """What the rows of a batch heard and have said, as the decoder's layers look at it."""

    feeds: dict[str, FloatArray]
    """The sound, its mask, and keys and values of the text: the graph's inputs but for tokens."""
    seen: NDArray[np.bool_]
    """(rows, columns) which columns of the text are a row's own."""

    def select(self, rows: Sequence[int]) -> "Text":
        """These rows alone."""
        index = list(rows)
        feeds = {name: array[index] for name, array in self.feeds.items()}
        return Text(feeds, self.seen[index])

    def forget(self, row: int, first_column: int) -> None:
        """Take back what a row said from a column on."""
        self.seen[row, first_column:] = False


class Decoder:
    """The layers. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint, *, threads: int) -> None:
        """Quantize the weights, and have them prepared for this CPU.

        Args:
            checkpoint: The model.
            threads: Cores for each pass.

        Raises:
            ModelError: The weights are not a Whisper model's.
            DeviceError: ONNX Runtime does not take them.

        """
        shape = checkpoint.dimensions
        self._num_layers = shape.n_text_layer
        self._num_heads = shape.n_text_head
        self._head_size = shape.n_text_state // shape.n_text_head
        # Half the memory; a look-up gains nothing from the other half.
        self._embeddings = np.asarray(checkpoint.tensors[EMBEDDINGS], np.float16)
        self._positions = np.asarray(checkpoint.tensors[_POSITIONS], np.float32)
        try:
            self._sound = open_session(sound_graph(checkpoint), threads=threads)
            self._text = open_session(text_graph(checkpoint), threads=threads)
            self._words = open_session(words_graph(checkpoint), threads=threads)
        except ValueError as error:
            raise ModelError(f"the weights are not a Whisper model's: {error}") from error
        except ERRORS as error:
            raise DeviceError(f"ONNX Runtime does not take the model: {error}") from error

    def hear(self, states: Sequence[FloatArray]) -> Text:
        """Begin texts about encoder states, (its frames, d) each."""
        names = [output.name for output in self._sound.get_outputs()]
        parts = [self._sound.run(names, {"states": row[None]}) for row in states]
        frames = max(map(len, states))
        feeds = {
            name: _padded(rows, frames, axis=3 if "keys" in name else 2)
            for name, rows in zip(names, zip(*parts, strict=True), strict=True)
        }
        heard = np.arange(frames) < np.array([[len(row)] for row in states])
        feeds["sound_mask"] = _mask(heard)[:, None, None]
        num_rows, heads, size = len(states), self._num_heads, self._head_size
        for layer in range(self._num_layers):
            feeds[f"text_keys_{layer}"] = np.zeros((num_rows, heads, size, 0), np.float32)
            feeds[f"text_values_{layer}"] = np.zeros((num_rows, heads, 0, size), np.float32)
        return Text(feeds, np.zeros((num_rows, 0), bool))

    def say(
        self, tokens: Sequence[Sequence[int]], positions: Sequence[int], text: Text
    ) -> tuple[FloatArray, FloatArray]:
        """Say tokens of every row at once, which may be of different number.

        Args:
            tokens: Per row, at least one.
            positions: Of each row's first token in its text.
            text: What was said before; it learns what is said now.

        Returns:
            (rows, tokens, d) the last states; (rows, heads, tokens, frames) what the alignment
            heads looked at, before softmax. Behind a row's own tokens and frames there is nothing
            of meaning.

        """
        longest = max(map(len, tokens))
        ids = np.array([[*row, *[0] * (longest - len(row))] for row in tokens])
        own = np.arange(longest) < np.array([[len(row)] for row in tokens])
        places = np.array(positions)[:, None] + np.arange(longest)
        # What only pads a row may stand beyond the last position.
        places = np.minimum(places, len(self._positions) - 1)
        past = np.broadcast_to(text.seen[:, None], (len(ids), longest, text.seen.shape[1]))
        seen = np.concatenate([past, np.tri(longest, dtype=bool) & own[:, None]], axis=2)
        feeds = {
            "embedded": self._embeddings[ids].astype(np.float32) + self._positions[places],
            "text_mask": _mask(seen)[:, None],
            **text.feeds,
        }
        layers = range(self._num_layers)
        kept = [f"{part}_{layer}" for layer in layers for part in ("keys", "values")]
        names = ["states", "scores", *(f"new_{name}" for name in kept)]
        states, scores, *new = self._text.run(names, feeds)
        text.feeds |= {f"text_{name}": array for name, array in zip(kept, new, strict=True)}
        text.seen = np.concatenate([text.seen, own], axis=1)
        return states, scores

    def logits(self, states: FloatArray) -> FloatArray:
        """(n, d) last states -> (n, vocabulary) what comes next."""
        found: FloatArray = self._words.run(["logits"], {"states": states})[0]
        return found


def _mask(seen: NDArray[np.bool_]) -> FloatArray:
    return np.where(seen, np.float32(0), _UNSEEN)


def _padded(parts: Sequence[FloatArray], length: int, *, axis: int) -> FloatArray:
    """Rows of different length along an axis, one behind the other, with zeros behind them."""
    rows = []
    for part in parts:
        lacking = [(0, 0)] * part.ndim
        lacking[axis] = 0, length - part.shape[axis]
        rows.append(np.pad(part, lacking))
    return np.concatenate(rows)
