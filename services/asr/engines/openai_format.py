"""OpenAI's checkpoints: a ``.pt`` file with ``dims`` and ``model_state_dict``.

Source: openai/whisper, ``__init__.py`` and ``model.py``.
"""

import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from services.asr.engines.torch_tensors import as_array, as_tensor
from services.asr.engines.whisper_checkpoint import (
    EMBEDDINGS,
    PROJECTION,
    Checkpoint,
    Dimensions,
    checkpoint_of,
)
from services.common.models import ModelError

_NAMES = (
    ("token_embedding", "embed_tokens"),
    ("positional_embedding", "embed_positions.weight"),
    (".blocks.", ".layers."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp_ln.", ".final_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    (".out.", ".out_proj."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
)
"""Part of a name here, and in transformers; longer ones before those that they contain."""


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ModelError: It is damaged, or not of a Whisper model.

    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        dimensions = _dimensions(stored["dims"])
        tensors = {
            _name_in_transformers(name): as_array(tensor)
            for name, tensor in stored["model_state_dict"].items()
        }
    except (OSError, RuntimeError, EOFError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is no checkpoint of OpenAI's: {error}") from error
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} holds more than weights, or is damaged") from error
    return checkpoint_of(path.parent, dimensions, tensors, name=path.stem)


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint.

    Raises:
        ModelError: Its projection is not its embeddings: the format has no place for that.

    """
    tensors = dict(checkpoint.tensors)
    projection = tensors.pop(PROJECTION, None)
    if projection is not None and not np.array_equal(projection, tensors[EMBEDDINGS]):
        raise ModelError("OpenAI's format has no place for a projection of its own")
    weights = {_name_at_openai(name): as_tensor(tensor) for name, tensor in tensors.items()}
    torch.save({"dims": asdict(checkpoint.dimensions), "model_state_dict": weights}, path)


def _name_in_transformers(name: str) -> str:
    for here, there in _NAMES:
        name = name.replace(here, there)
    return f"model.{name}"


def _name_at_openai(name: str) -> str:
    name = name.removeprefix("model.")
    for here, there in _NAMES:
        name = name.replace(there, here)
    return name


def _dimensions(dims: Mapping[str, Any]) -> Dimensions:
    return Dimensions(**{name: int(value) for name, value in dims.items()})
