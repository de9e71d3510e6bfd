"""A tiny Nemotron 3 Diarization that has learnt nothing, and what transformers says with it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Nemotron3DiarizationConfig,
    Nemotron3DiarizationForAudioFrameClassification,
    Nemotron3DiarizationProcessor,
    NemotronAsrStreamingFeatureExtractor,
)

from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer.engines.nemotron import Nemotron
from services.diarizer.engines.sortformer import Preset, Sortformer

CACHE_FRAMES, FIFO_FRAMES = 32, 24
_CONFIG = {
    "audio_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "head_config": {"hidden_size": 32, "audio_hidden_size": 64},
    "streaming_config": {
        "fifo_length": FIFO_FRAMES,
        "speaker_cache_update_period": 16,
        "speaker_cache_length": CACHE_FRAMES,
    },
}


def save(folder: Path) -> Path:
    """Make a model whose speakers come and go by chance, and write it as transformers does."""
    torch.manual_seed(0)
    model: Any = Nemotron3DiarizationForAudioFrameClassification(
        Nemotron3DiarizationConfig(**_CONFIG)
    ).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "upsampler" not in name:
            parameter.data.normal_(0, 0.25)
    model.silence_embeds.data.normal_(0, 0.25)
    processor = Nemotron3DiarizationProcessor(
        NemotronAsrStreamingFeatureExtractor(feature_size=128)
    )
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * SAMPLE_RATE_HZ).astype(np.float32)
    with torch.inference_mode():
        sound = processor(noise, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        logits = model(**sound).logits
        model.classifier.out_proj.bias -= logits.mean(dim=(0, 1))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load(folder: Path, *, look_ahead: int) -> Sortformer:
    network = Nemotron(folder, device="cpu", compute_type="float32", threads=1)
    return Sortformer(network, network.preset(look_ahead), active=0.5)


def streamed(folder: Path, heard: FloatArray, preset: Preset) -> FloatArray:
    """(rows, speakers) what transformers itself says of a recording, chunk by chunk.

    The first chunk is shorter: it and what follows it are as long as the others without.
    """
    model: Any = Nemotron3DiarizationForAudioFrameClassification.from_pretrained(folder).eval()
    processor: Any = Nemotron3DiarizationProcessor.from_pretrained(folder)
    # What the last window of a chunk lacks otherwise.
    late = np.pad(heard, (40, 0))
    sound = processor(late, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
    features = sound["input_features"]
    said, cache, begin = [], None, 0
    chunk, look_ahead = preset.chunk * 8, preset.look_ahead * 8
    end = chunk
    while end <= features.shape[1]:
        with torch.inference_mode():
            found = model(
                features[:, begin:end],
                speaker_cache=cache,
                num_lookahead_frames=preset.look_ahead,
            )
        cache = found.speaker_cache
        said.append(found.logits[0].sigmoid().numpy())
        begin, end = end - look_ahead, end + chunk
    return np.concatenate(said)
