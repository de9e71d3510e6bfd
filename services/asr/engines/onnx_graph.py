"""Whisper's decoder as graphs for ONNX Runtime, with int8 weights.

A pass over many tokens costs little more than one over a single token, so that a draft is verified
almost for nothing. Weights are quantized in blocks, activations row by row inside the operator.

Sources: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022; ONNX
Runtime, ``docs/ContribOperators.md`` (``MatMulNBits``).
"""

import numpy as np

from services.asr.engines.whisper_checkpoint import EMBEDDINGS, PROJECTION, Checkpoint
from services.common.audio import FloatArray
from services.common.models import ModelError
from services.common.onnx_graph import RUNTIME, Graph

_BLOCKS = (64, 32, 16)
"""How many weights may share a scale: the first that divides their number."""
_ZERO = 128
_INT8_ACTIVATIONS = 4


def sound_graph(checkpoint: Checkpoint) -> bytes:
    """Encoder states as the decoder's layers look at them.

    ``states`` (rows, frames, d) -> per layer ``sound_keys_N`` (rows, heads, head size, frames) and
    ``sound_values_N`` (rows, heads, frames, head size).

    Raises:
        ModelError: The weights are not a Whisper model's.

    """
    graph = _Graph(checkpoint)
    graph.input("states", ["rows", "frames", graph.width])
    for layer in range(graph.num_layers):
        name = f"model.decoder.layers.{layer}.encoder_attn"
        keys = graph.linear("states", f"{name}.k_proj")
        values = graph.linear("states", f"{name}.v_proj")
        graph.output(f"sound_keys_{layer}", graph.columns(keys))
        graph.output(f"sound_values_{layer}", graph.heads(values))
    return graph.serialized("sound")


def text_graph(checkpoint: Checkpoint) -> bytes:
    """One pass over tokens of many rows.

    Inputs, float32: ``embedded`` (rows, tokens, d); ``text_mask`` (rows, 1, tokens, past + tokens)
    and ``sound_mask`` (rows, 1, 1, frames), added to attention; per layer what ``sound_graph``
    gives, and ``text_keys_N`` (rows, heads, head size, past), ``text_values_N`` (rows, heads, past,
    head size).

    Outputs: ``states`` (rows, tokens, d); ``scores`` (rows, alignment heads, tokens, frames), their
    attention before softmax; per layer ``new_keys_N`` and ``new_values_N``, the past and this.

    Raises:
        ModelError: The weights are not a Whisper model's.

    """
    graph = _Graph(checkpoint)
    graph.input("embedded", ["rows", "tokens", graph.width])
    graph.input("text_mask", ["rows", 1, "tokens", "seen"])
    graph.input("sound_mask", ["rows", 1, 1, "frames"])
    x, scores = "embedded", []
    for layer in range(graph.num_layers):
        x, looked = _layer(graph, layer, x)
        heads = [head for at, head in checkpoint.alignment_heads if at == layer]
        if heads:
            chosen = graph.constant(f"heads_{layer}", np.array(heads, np.int64))
            scores.append(graph.op("Gather", [looked, chosen], axis=1))
    graph.output("states", x)
    graph.output("scores", graph.op("Concat", scores, axis=1))
    return graph.serialized("text")


def words_graph(checkpoint: Checkpoint) -> bytes:
    """What comes next: ``states`` (n, d) -> ``logits`` (n, vocabulary).

    Raises:
        ModelError: The weights are not a Whisper model's.

    """
    graph = _Graph(checkpoint)
    graph.input("states", ["wanted", graph.width])
    states = graph.norm("states", "model.decoder.layer_norm")
    projection = PROJECTION if PROJECTION in checkpoint.tensors else EMBEDDINGS
    graph.output("logits", graph.linear(states, projection.removesuffix(".weight")))
    return graph.serialized("words")


def _layer(graph: "_Graph", layer: int, x: str) -> tuple[str, str]:
    """A layer's output, and its attention to the sound before softmax."""
    name = f"model.decoder.layers.{layer}"
    attention = f"{name}.self_attn"
    normal = graph.norm(x, f"{name}.self_attn_layer_norm")
    query = graph.heads(graph.linear(normal, f"{attention}.q_proj", scale=graph.query_scale))
    past_keys = graph.input(f"text_keys_{layer}", [*graph.per_head, graph.head_size, "past"])
    past_values = graph.input(f"text_values_{layer}", [*graph.per_head, "past", graph.head_size])
    new_keys = graph.columns(graph.linear(normal, f"{attention}.k_proj"))
    new_values = graph.heads(graph.linear(normal, f"{attention}.v_proj"))
    keys = graph.output(f"new_keys_{layer}", graph.op("Concat", [past_keys, new_keys], axis=3))
    values = graph.output(
        f"new_values_{layer}", graph.op("Concat", [past_values, new_values], axis=2)
    )
    looked = graph.op("MatMul", [query, keys])
    x = graph.attend(x, graph.op("Add", [looked, "text_mask"]), values, attention)

    attention = f"{name}.encoder_attn"
    normal = graph.norm(x, f"{name}.encoder_attn_layer_norm")
    query = graph.heads(graph.linear(normal, f"{attention}.q_proj", scale=graph.query_scale))
    keys = graph.input(f"sound_keys_{layer}", [*graph.per_head, graph.head_size, "frames"])
    values = graph.input(f"sound_values_{layer}", [*graph.per_head, "frames", graph.head_size])
    looked = graph.op("MatMul", [query, keys])
    x = graph.attend(x, graph.op("Add", [looked, "sound_mask"]), values, attention)

    normal = graph.norm(x, f"{name}.final_layer_norm")
    wide = graph.op("Gelu", [graph.linear(normal, f"{name}.fc1")])
    return graph.op("Add", [x, graph.linear(wide, f"{name}.fc2")]), looked


class _Graph(Graph):
    """A graph with the weights of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        shape = checkpoint.dimensions
        self._tensors = checkpoint.tensors
        self._num_heads = shape.n_text_head
        self.num_layers = shape.n_text_layer
        self.width = shape.n_text_state
        self.head_size = shape.n_text_state // shape.n_text_head
        self.query_scale = self.head_size**-0.5
        self.per_head: list[str | int] = ["rows", shape.n_text_head]

    def linear(self, x: str, name: str, *, scale: float = 1.0) -> str:
        """(..., in) -> (..., out)."""
        weight = self._tensor(f"{name}.weight") * np.float32(scale)
        num_out, num_in = weight.shape
        size = next((size for size in _BLOCKS if num_in % size == 0), None)
        if size is None:
            raise ModelError(f"{name} takes {num_in} numbers: no multiple of {_BLOCKS[-1]}")
        blocks = weight.reshape(num_out, num_in // size, size)
        scales = np.maximum(np.abs(blocks).max(-1) / (_ZERO - 1), np.finfo(np.float32).tiny)
        quantized = (np.round(blocks / scales[..., None]) + _ZERO).astype(np.uint8)
        inputs = [
            x,
            self.constant(f"{name}.quantized", quantized),
            self.constant(f"{name}.scales", scales.astype(np.float32)),
        ]
        if f"{name}.bias" in self._tensors:
            bias = self._tensor(f"{name}.bias") * np.float32(scale)
            inputs += ["", "", self.constant(f"{name}.bias", bias)]
        return self.op(
            "MatMulNBits",
            inputs,
            domain=RUNTIME,
            K=num_in,
            N=num_out,
            bits=8,
            block_size=size,
            accuracy_level=_INT8_ACTIVATIONS,
        )

    def norm(self, x: str, name: str) -> str:
        parts = [
            self.constant(f"{name}.{part}", self._tensor(f"{name}.{part}"))
            for part in ("weight", "bias")
        ]
        return self.op("LayerNormalization", [x, *parts], axis=-1, epsilon=1e-5)

    def heads(self, x: str) -> str:
        """(rows, n, d) -> (rows, heads, n, head size)."""
        return self.op("Transpose", [self._split(x)], perm=[0, 2, 1, 3])

    def columns(self, x: str) -> str:
        """(rows, n, d) -> (rows, heads, head size, n)."""
        return self.op("Transpose", [self._split(x)], perm=[0, 2, 3, 1])

    def attend(self, x: str, looked: str, values: str, name: str) -> str:
        """X and what attention found."""
        found = self.op("MatMul", [self.op("Softmax", [looked], axis=-1), values])
        shape = self.constant("join", np.array([0, 0, self.width]))
        rows = self.op("Reshape", [self.op("Transpose", [found], perm=[0, 2, 1, 3]), shape])
        return self.op("Add", [x, self.linear(rows, f"{name}.out_proj")])

    def _split(self, x: str) -> str:
        shape = self.constant("split", np.array([0, 0, self._num_heads, self.head_size]))
        return self.op("Reshape", [x, shape])

    def _tensor(self, name: str) -> FloatArray:
        try:
            return np.asarray(self._tensors[name], np.float32)
        except KeyError as error:
            raise ModelError(f"the weights are not a Whisper model's: no {name}") from error
