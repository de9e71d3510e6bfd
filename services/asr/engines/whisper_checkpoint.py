"""A Whisper model as it was read from files: its shape, its tensors, its tokenizer.

Tensors go by the names of ``transformers``' ``WhisperForConditionalGeneration``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from services.asr.engines.alignment_heads import (
    PUBLISHED,
    Head,
    checked_heads,
    default_heads,
    parse_heads,
)
from services.common import models
from services.common.models import ModelError

Tensor: TypeAlias = NDArray[Any]
Tensors: TypeAlias = dict[str, Tensor]

EMBEDDINGS = "model.decoder.embed_tokens.weight"
PROJECTION = "proj_out.weight"
"""To the vocabulary. Not stored where it is the embeddings, as in all models of OpenAI's."""

_ENGLISH_VOCABULARY = 51_864
_LANGUAGES_BY_VOCABULARY = {_ENGLISH_VOCABULARY: 1, 51_865: 99, 51_866: 100}


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The shape of a model, under the names of OpenAI's checkpoints."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int

    @property
    def is_multilingual(self) -> bool:
        """Whether there are tokens for languages and tasks."""
        return self.n_vocab > _ENGLISH_VOCABULARY


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model, read."""

    dimensions: Dimensions
    tensors: Tensors
    """By name, in the numbers they are stored in; bfloat16, which numpy lacks, as float32."""
    tokenizer: Path
    """Its ``tokenizer.json``."""
    alignment_heads: tuple[Head, ...]
    """Those that its files name, else OpenAI's for a model of that name, else the default."""


def checkpoint_of(
    folder: Path,
    dimensions: Dimensions,
    tensors: Tensors,
    *,
    heads_file: Path | None = None,
    name: str = "",
) -> Checkpoint:
    """Put together a model that was read and what lies beside it.

    Args:
        folder: Where its tokenizer may be.
        dimensions: Its shape.
        tensors: Its weights.
        heads_file: A JSON object that may name its alignment heads, if it is there.
        name: Of a checkpoint of OpenAI's, whose heads are published.

    Raises:
        ModelError: There is no tokenizer, or the file is damaged or names heads that are not there.

    """
    tokenizer = tokenizer_of(folder, dimensions.n_vocab)
    return Checkpoint(dimensions, tensors, tokenizer, _heads(dimensions, heads_file, name))


def dimensions_of(
    tensors: Mapping[str, Tensor], *, audio_heads: int, text_heads: int
) -> Dimensions:
    """Read the shape off the tensors, which say all but the number of heads.

    Raises:
        ModelError: They are not a Whisper model's.

    """
    try:
        audio_ctx, audio_state = tensors["model.encoder.embed_positions.weight"].shape
        text_ctx, text_state = tensors["model.decoder.embed_positions.weight"].shape
        num_vocab = tensors[EMBEDDINGS].shape[0]
        num_mels = tensors["model.encoder.conv1.weight"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise ModelError(f"the weights are not a Whisper model's: {error}") from error
    return Dimensions(
        n_mels=num_mels,
        n_audio_ctx=audio_ctx,
        n_audio_state=audio_state,
        n_audio_head=audio_heads,
        n_audio_layer=_num_layers(tensors, "model.encoder.layers."),
        n_vocab=num_vocab,
        n_text_ctx=text_ctx,
        n_text_state=text_state,
        n_text_head=text_heads,
        n_text_layer=_num_layers(tensors, "model.decoder.layers."),
    )


def tokenizer_of(folder: Path, num_vocab: int) -> Path:
    """The tokenizer beside a model, else that of an installed model with as many tokens.

    Raises:
        ModelError: There is none.

    """
    path = folder / "tokenizer.json"
    if path.is_file():
        return path
    num_languages = _LANGUAGES_BY_VOCABULARY.get(num_vocab)
    for model in models.installed():
        if model.kind == "asr" and len(model.languages) == num_languages:
            return models.locate(model.name) / "tokenizer.json"
    raise ModelError(
        f"{folder} has no tokenizer.json: copy it there, or `voxmesh pull` a model of that family"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: It is missing, or none.

    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object")
    return found


def _heads(dimensions: Dimensions, path: Path | None, name: str) -> tuple[Head, ...]:
    layers, heads = dimensions.n_text_layer, dimensions.n_text_head
    named = read_json(path).get("alignment_heads") if path and path.is_file() else None
    if named:
        return checked_heads(named, num_layers=layers, num_heads=heads)
    if name in PUBLISHED:
        return parse_heads(PUBLISHED[name], num_layers=layers, num_heads=heads)
    return default_heads(num_layers=layers, num_heads=heads)


def _num_layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    names = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({name.split(".")[0] for name in names})
