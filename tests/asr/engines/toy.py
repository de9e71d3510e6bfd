"""A Whisper model of random weights, small enough to be made in a test."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import torch
from transformers import WhisperForConditionalGeneration

from services.asr.engines.torch_model import config_of
from services.asr.engines.torch_tensors import as_array
from services.asr.engines.torch_whisper import TorchWhisper
from services.asr.engines.whisper_checkpoint import PROJECTION, Checkpoint, Dimensions
from tests.asr.conftest import FRAMING

SHAPE = Dimensions(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=64,
    n_audio_head=4,
    n_audio_layer=2,
    n_vocab=51_864,
    n_text_ctx=448,
    n_text_state=64,
    n_text_head=4,
    n_text_layer=3,
)
HEADS = ((1, 1), (2, 0), (2, 3))


def toy_checkpoint(
    tokenizer: Path, *, tied: bool = False, speaks: Collection[int] = ()
) -> Checkpoint:
    """Random weights of an English model.

    They are scaled, and untied unless asked otherwise: tied ones with small values would repeat
    the last token whatever they hear. ``speaks``: the tokens that it says; none: any.
    """
    model = WhisperForConditionalGeneration(config_of(SHAPE, tied=tied))
    numbers = torch.Generator().manual_seed(0)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for tensor in tensors.values():
        if tensor.dim() > 1:
            tensor.normal_(0, 0.3, generator=numbers)
    if tied:
        del tensors[PROJECTION]
    if speaks:
        silent = torch.ones(SHAPE.n_vocab, dtype=torch.bool)
        silent[list(speaks)] = False
        tensors[PROJECTION][silent] = 0.0
    arrays = {name: as_array(tensor) for name, tensor in tensors.items()}
    return Checkpoint(SHAPE, arrays, tokenizer, HEADS)


def without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The same without one of its tensors."""
    return replace(checkpoint, tensors={n: t for n, t in checkpoint.tensors.items() if n != name})


def load_torch(checkpoint: Checkpoint, **how: object) -> TorchWhisper:
    """A model on the CPU, in float32 unless told otherwise."""
    usual = {
        "device": "cpu",
        "compute_type": "float32",
        "threads": 1,
        "framing": FRAMING,
    }
    return TorchWhisper(checkpoint, **(usual | how))  # type: ignore[arg-type]
