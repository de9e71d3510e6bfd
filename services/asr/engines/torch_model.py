"""transformers' Whisper modules with the weights of a checkpoint."""

from typing import Any, TypeAlias

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from services.asr.engines.torch_tensors import as_tensor
from services.asr.engines.whisper_checkpoint import PROJECTION, Checkpoint, Dimensions
from services.common.models import ModelError

Modules: TypeAlias = Any
"""``WhisperForConditionalGeneration``: only its modules are used, not its ``generate``."""


def config_of(shape: Dimensions, *, tied: bool) -> WhisperConfig:
    """The configuration of a model of a shape; tied: it projects with its embeddings."""
    return WhisperConfig(
        vocab_size=shape.n_vocab,
        num_mel_bins=shape.n_mels,
        d_model=shape.n_audio_state,
        encoder_layers=shape.n_audio_layer,
        encoder_attention_heads=shape.n_audio_head,
        encoder_ffn_dim=4 * shape.n_audio_state,
        max_source_positions=shape.n_audio_ctx,
        decoder_layers=shape.n_text_layer,
        decoder_attention_heads=shape.n_text_head,
        decoder_ffn_dim=4 * shape.n_text_state,
        max_target_positions=shape.n_text_ctx,
        tie_word_embeddings=tied,
    )


def build(checkpoint: Checkpoint, *, device: str, dtype: torch.dtype) -> Modules:
    """Make the modules.

    Raises:
        ModelError: A weight is missing, is not the model's, or has another shape.

    """
    tied = PROJECTION not in checkpoint.tensors
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config_of(checkpoint.dimensions, tied=tied))
    try:
        weights = {name: as_tensor(tensor) for name, tensor in checkpoint.tensors.items()}
        missing, unknown = model.load_state_dict(weights, strict=False, assign=True)
    except RuntimeError as error:
        raise ModelError(f"the weights do not fit the model: {error}") from error
    lacking = [name for name in missing if not (tied and name == PROJECTION)]
    if lacking or unknown:
        raise ModelError(
            f"the weights are not a Whisper model's: {len(lacking)} are missing"
            f" {lacking[:3]}, {len(unknown)} are unknown {unknown[:3]}"
        )
    model.tie_weights()
    return model.to(device=device, dtype=dtype).eval().requires_grad_(False)
