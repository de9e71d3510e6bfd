"""Hugging Face's folders: ``config.json``, ``*.safetensors``, and ``generation_config.json``."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from services.asr.engines.torch_tensors import as_array
from services.asr.engines.whisper_checkpoint import (
    Checkpoint,
    Tensors,
    checkpoint_of,
    dimensions_of,
    read_json,
)
from services.common.models import ModelError


def load(folder: Path) -> Checkpoint:
    """Read a model, in one file or in several.

    Raises:
        ModelError: It is damaged, or not a Whisper model.

    """
    config = read_json(folder / "config.json")
    tensors: Tensors = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            tensors |= {name: as_array(tensor) for name, tensor in load_file(path).items()}
        audio_heads = int(config["encoder_attention_heads"])
        text_heads = int(config["decoder_attention_heads"])
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder} is damaged: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}/config.json is not a Whisper model's: {error}") from error
    dimensions = dimensions_of(tensors, audio_heads=audio_heads, text_heads=text_heads)
    return checkpoint_of(folder, dimensions, tensors, heads_file=folder / "generation_config.json")
