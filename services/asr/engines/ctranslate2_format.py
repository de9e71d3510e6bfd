"""CTranslate2's folders: ``model.bin``, a plain list of named tensors, and ``config.json``.

float16 and float32 weights are read as they are; int8 weights become float32 again, at the
accuracy that they have left. Source: OpenNMT/CTranslate2, ``python/ctranslate2/specs``
(``model_spec.py``: the file; ``whisper_spec.py`` and ``transformer_spec.py``: the names).
"""

import struct
from io import BufferedReader
from pathlib import Path

import numpy as np

from services.asr.engines.whisper_checkpoint import (
    EMBEDDINGS,
    PROJECTION,
    Checkpoint,
    Tensor,
    Tensors,
    checkpoint_of,
    dimensions_of,
)
from services.common.models import ModelError

_SIDES = ("encoder", "decoder")
_OLDEST_VERSION = 4
"""Of the file's format: before it, sizes were written otherwise."""
_BFLOAT16 = 5
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, np.uint16)
"""By their number in the file; bfloat16, which numpy lacks, is the upper half of float32."""
_ATTENTIONS = (
    ("self_attention", "self_attn", (("q", "k", "v"), ("out",))),
    ("attention", "encoder_attn", (("q",), ("k", "v"), ("out",))),
)
"""Name in the file, name in transformers, and what each stored matrix is put together from. The
encoder's layers have only the first."""


def load(folder: Path) -> Checkpoint:
    """Read a model.

    Raises:
        ModelError: It is damaged, or not a Whisper model.

    """
    try:
        with (folder / "model.bin").open("rb") as stream:
            variables = _read_variables(stream)
    except (OSError, struct.error, UnicodeDecodeError, ValueError, IndexError) as error:
        raise ModelError(f"{folder}/model.bin is damaged: {error}") from error
    try:
        audio_heads, text_heads = (int(variables[f"{side}/num_heads"]) for side in _SIDES)
        tensors = _renamed(_dequantized(variables))
    except (KeyError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}/model.bin is not a Whisper model's: {error}") from error
    dimensions = dimensions_of(tensors, audio_heads=audio_heads, text_heads=text_heads)
    return checkpoint_of(folder, dimensions, tensors, heads_file=folder / "config.json")


def _read_variables(stream: BufferedReader) -> Tensors:
    """All variables by name; those that are another one's alias are that one."""
    (version,) = _unpack(stream, "<I")
    if version < _OLDEST_VERSION:
        raise ValueError(f"format {version} is older than {_OLDEST_VERSION}")
    kind = _string(stream)
    if kind != "WhisperSpec":
        raise ValueError(f"it holds a {kind!r}, no Whisper model")
    _unpack(stream, "<I")  # the revision of the names
    found: Tensors = {}
    for _ in range(_unpack(stream, "<I")[0]):
        name, tensor = _variable(stream)
        found[name] = tensor
    for _ in range(_unpack(stream, "<I")[0]):
        alias, name = _string(stream), _string(stream)
        if name not in found:
            raise ValueError(f"{alias} is to be {name}, which is not there")
        found[alias] = found[name]
    return found


def _variable(stream: BufferedReader) -> tuple[str, Tensor]:
    name = _string(stream)
    (rank,) = _unpack(stream, "<B")
    shape = _unpack(stream, f"<{rank}I")
    kind, num_bytes = _unpack(stream, "<BI")
    # Writable, as torch asks of the memory that it takes over.
    content = bytearray(num_bytes)
    if stream.readinto(content) != num_bytes:
        raise ValueError(f"it ends inside {name}")
    tensor: Tensor = np.frombuffer(content, _DTYPES[kind]).reshape(shape)
    if kind == _BFLOAT16:
        tensor = (tensor.astype(np.uint32) << 16).view(np.float32)
    return name, tensor


def _string(stream: BufferedReader) -> str:
    (length,) = _unpack(stream, "<H")
    return stream.read(length).rstrip(b"\0").decode()


def _unpack(stream: BufferedReader, form: str) -> tuple[int, ...]:
    return struct.unpack(form, stream.read(struct.calcsize(form)))


def _dequantized(variables: Tensors) -> Tensors:
    """Quantized weights divided by what they were multiplied with, one number per row."""
    # By identity: of two names of one tensor only one has the scale, and it stays one tensor.
    whole: dict[int, Tensor] = {}
    for name, tensor in variables.items():
        scale = variables.get(f"{name}_scale")
        if scale is not None:
            rows = scale.reshape(-1, *[1] * (tensor.ndim - 1))
            whole[id(tensor)] = tensor.astype(np.float32) / rows.astype(np.float32)
    return {name: whole.get(id(tensor), tensor) for name, tensor in variables.items()}


def _renamed(variables: Tensors) -> Tensors:
    tensors: Tensors = {}
    for side in _SIDES:
        tensors |= _of_side(variables, side)
    embeddings = tensors[EMBEDDINGS] = variables["decoder/embeddings/weight"]
    projection = variables["decoder/projection/weight"]
    if projection is not embeddings:
        tensors[PROJECTION] = projection
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            tensors[f"model.encoder.{conv}.{part}"] = variables[f"encoder/{conv}/{part}"]
    return tensors


def _of_side(variables: Tensors, side: str) -> Tensors:
    prefix = f"model.{side}"
    tensors = {
        f"{prefix}.embed_positions.weight": variables[f"{side}/position_encodings/encodings"]
    }
    tensors |= _norm(variables, f"{side}/layer_norm", f"{prefix}.layer_norm")
    layer = 0
    while f"{side}/layer_{layer}/ffn/linear_0/weight" in variables:
        tensors |= _layer(variables, f"{side}/layer_{layer}", f"{prefix}.layers.{layer}")
        layer += 1
    return tensors


def _layer(variables: Tensors, here: str, there: str) -> Tensors:
    tensors = _norm(variables, f"{here}/ffn/layer_norm", f"{there}.final_layer_norm")
    for linear, name in (("linear_0", "fc1"), ("linear_1", "fc2")):
        tensors |= _linear(variables, f"{here}/ffn/{linear}", [f"{there}.{name}"])
    for attention, name, linears in _ATTENTIONS:
        if f"{here}/{attention}/linear_0/weight" not in variables:
            continue
        tensors |= _norm(variables, f"{here}/{attention}/layer_norm", f"{there}.{name}_layer_norm")
        for number, parts in enumerate(linears):
            targets = [f"{there}.{name}.{part}_proj" for part in parts]
            tensors |= _linear(variables, f"{here}/{attention}/linear_{number}", targets)
    return tensors


def _norm(variables: Tensors, here: str, there: str) -> Tensors:
    return {
        f"{there}.weight": variables[f"{here}/gamma"],
        f"{there}.bias": variables[f"{here}/beta"],
    }


def _linear(variables: Tensors, here: str, targets: list[str]) -> Tensors:
    """One stored matrix as the one or several that it was put together from."""
    tensors: Tensors = {}
    for part in ("weight", "bias"):
        pieces = np.split(variables[f"{here}/{part}"], len(targets))
        for target, piece in zip(targets, pieces, strict=True):
            # Whisper's keys have no bias: here it is a row of zeros.
            if not (part == "bias" and target.endswith("k_proj")):
                tensors[f"{target}.{part}"] = piece
    return tensors
