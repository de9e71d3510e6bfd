"""Nemotron 3 Diarization: a streaming Sortformer for eight speakers, on transformers.

Streams of any age share a batch: what each of them keeps goes before its chunk, and nobody attends
to the padding behind another's.

Source: ``Nemotron3DiarizationForAudioFrameClassification`` of transformers; ``sortformer.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn.functional import pad
from transformers import (
    Nemotron3DiarizationForAudioFrameClassification,
    Nemotron3DiarizationProcessor,
)
from transformers.models.nemotron3_diarization.modeling_nemotron3_diarization import (
    Nemotron3DiarizationSpeakerCache as SpeakerCache,
)
from transformers.utils.logging import disable_progress_bar

from services.common.audio import FloatArray
from services.common.errors import CheckpointError, DeviceError
from services.common.models import ModelError
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.torch_numbers import dtype_of
from services.diarizer.engines.sortformer import Heard, Preset, calmest
from services.diarizer.engines.sortformer_memory import Cache

Modules: TypeAlias = Any
"""``Nemotron3DiarizationForAudioFrameClassification``, without types in transformers."""


@dataclass(frozen=True, slots=True)
class NemotronCache:
    """The frames that a stream keeps."""

    embeds: torch.Tensor
    """(frames, width) the best of each speaker, once there were more than fit; else the oldest."""
    probs: torch.Tensor
    """(frames, speakers) who speaks in them."""
    fifo: torch.Tensor
    """(frames, width) the newest."""
    compressed: torch.Tensor
    """() bool: whether there were more than fit."""

    def dump(self) -> bytes:
        """See ``Cache``."""
        data: bytes = save_tensors(
            {
                "embeds": self.embeds.cpu(),
                "probs": self.probs.cpu(),
                "fifo": self.fifo.cpu(),
                "compressed": self.compressed,
            }
        )
        return data


class Nemotron:
    """The network. Implements ``Network``."""

    left_frames = 0

    def __init__(self, folder: Path, *, device: str, compute_type: str, threads: int) -> None:
        """Load it.

        Args:
            folder: What transformers' ``save_pretrained`` made of the model and its processor.
            device: ``cpu``, ``cuda`` or ``mps``.
            compute_type: ``float32``, ``float16``, ``bfloat16``, or ``auto``: see ``dtype_of``.
            threads: Cores, on a CPU. For the whole process: torch knows no other way.

        Raises:
            ModelError: The folder holds no such model.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        dtype = dtype_of(compute_type, device, on_gpu=torch.float32)
        if device == "cpu":
            torch.set_num_threads(threads)
        try:
            disable_progress_bar()
            self._processor = Nemotron3DiarizationProcessor.from_pretrained(folder)
            model: Modules = Nemotron3DiarizationForAudioFrameClassification.from_pretrained(
                folder, dtype=dtype
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{folder} holds no Nemotron 3 Diarization: {error}") from error
        try:
            self._model = model.to(device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:
            # A torch without CUDA says so with an assertion.
            raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error
        config = model.config
        self.name = f"nemotron-{folder.resolve().name}"
        self.num_speakers: int = config.head_config.num_speakers
        self.rows: int = config.audio_config.subsampling_factor
        self._config = config.streaming_config
        self._width: int = config.audio_config.hidden_size
        self._numbers = {"dtype": dtype, "device": device}

    def preset(self, look_ahead: int) -> Preset:
        """See ``Network``."""
        modes = self._processor.streaming_modes.values()
        return calmest((Preset(*mode) for mode in modes), look_ahead)

    def empty(self) -> NemotronCache:
        """See ``Network``."""
        nothing = torch.zeros(0, self._width, **self._numbers)
        nobody = torch.zeros(0, self.num_speakers, **self._numbers)
        return NemotronCache(nothing, nobody, nothing, compressed=torch.tensor(data=False))

    def load(self, data: bytes) -> NemotronCache:
        """See ``Network``."""
        try:
            found = NemotronCache(**load_tensors(data))
        except (SafetensorError, TypeError) as error:
            raise CheckpointError(f"the checkpoint is damaged: {error}") from error
        num_frames = len(found.embeds)
        fits = (
            found.embeds.shape == (num_frames, self._width)
            and found.probs.shape == (num_frames, self.num_speakers)
            and found.fifo.shape == (len(found.fifo), self._width)
            and num_frames <= self._config.speaker_cache_length
            and len(found.fifo) <= self._config.fifo_length
            and found.compressed.shape == ()
        )
        if not fits:
            raise CheckpointError("the checkpoint holds frames that are not this model's")
        kept = (found.embeds, found.probs, found.fifo)
        if not all(tensor.isfinite().all() for tensor in kept):
            raise CheckpointError("the checkpoint is damaged: it holds something that is no number")
        embeds, probs, fifo = (tensor.to(**self._numbers) for tensor in kept)
        return NemotronCache(embeds, probs, fifo, found.compressed)

    def hear(self, audio: FloatArray, caches: Sequence[Cache], chunk: int) -> list[Heard]:
        """See ``Network``."""
        try:
            with torch.inference_mode():
                return self._hear(audio, [_own(cache) for cache in caches], chunk)
        except RuntimeError as error:
            # Also what is raised when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def _hear(self, audio: FloatArray, caches: Sequence[NemotronCache], chunk: int) -> list[Heard]:
        sound = self._processor.feature_extractor(
            list(audio), sampling_rate=SAMPLE_RATE_HZ, center=False, return_tensors="pt"
        )
        tower = self._model.model.audio_tower
        new = tower.embedder(sound["input_features"].to(**self._numbers))
        known = [torch.cat([cache.embeds, cache.fifo]) for cache in caches]
        lengths = [len(frames) + new.shape[1] for frames in known]
        rows = [torch.cat([frames, heard]) for frames, heard in zip(known, new, strict=True)]
        batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        places = torch.arange(batch.shape[1], device=batch.device)
        mask = places < torch.tensor(lengths, device=batch.device)[:, None]
        states = tower(inputs_embeds=batch, attention_mask=mask).last_hidden_state
        # The convolution behind it takes a frame that is not there for zeros.
        states = self._model.model.proj(states) * mask[..., None]
        logits = self._model.classifier(self._model.model.upsampler(states))
        return [
            self._heard(cache, row[None], said[None, : len(row) * self.rows], chunk, new.shape[1])
            for cache, row, said in zip(caches, rows, logits, strict=True)
        ]

    def _heard(
        self,
        cache: NemotronCache,
        row: torch.Tensor,
        logits: torch.Tensor,
        chunk: int,
        num_new: int,
    ) -> Heard:
        state = SpeakerCache(self._config)
        state.embeds = _padded(cache.embeds, state.speaker_cache_length)
        state.probs = _padded(cache.probs, state.speaker_cache_length)
        state.fifo = _padded(cache.fifo, state.fifo_length)
        state.num_cache_frames, state.num_fifo_frames = len(cache.embeds), len(cache.fifo)
        state.is_compressed = bool(cache.compressed)
        state.is_initialized = True
        state.update(row, logits, self._model.silence_embeds, chunk)
        new = logits[0, -num_new * self.rows :].float().sigmoid()
        return Heard(
            new.cpu().numpy(),
            NemotronCache(
                state.embeds[0, : state.num_cache_frames],
                state.probs[0, : state.num_cache_frames],
                state.fifo[0, : state.num_fifo_frames],
                torch.tensor(state.is_compressed),
            ),
        )


def _own(cache: Cache) -> NemotronCache:
    assert isinstance(cache, NemotronCache)
    return cache


def _padded(frames: torch.Tensor, length: int) -> torch.Tensor:
    """(1, length, ...) a copy, which the cache may write to."""
    return pad(frames, (0, 0, 0, length - len(frames)))[None]
