"""NVIDIA's Streaming Sortformer for four speakers, on NeMo.

Streams of any age share a batch: what each of them keeps goes before its chunk, and nobody attends
to the padding behind another's.

Source: ``SortformerEncLabelModel.forward_streaming_step`` of NeMo, which says nothing of the frames
behind a chunk; ``sortformer.py``.
"""

import logging
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from services.common.audio import FloatArray
from services.common.errors import CheckpointError, DeviceError
from services.common.models import ModelError
from services.common.torch_numbers import dtype_of
from services.diarizer.engines.sortformer import (
    FRAME_SAMPLES,
    HOP_SAMPLES,
    Heard,
    Preset,
    calmest,
)
from services.diarizer.engines.sortformer_memory import Cache

Modules: TypeAlias = Any
"""``SortformerEncLabelModel``, without types in NeMo."""

PRESETS = (Preset(3, 1), Preset(6, 7))
"""Those of NVIDIA that are live, for both of which the three lengths below are meant."""
CACHE_FRAMES = 188
FIFO_FRAMES = 188
UPDATE_FRAMES = 144
"""So many leave the newest frames at a time, and the cache is made anew with them."""

_HOPS = FRAME_SAMPLES // HOP_SAMPLES
_EARLY_HOPS = 2
_EARLY_SAMPLES = 64
"""NeMo's windows lie around the multiples of a hop: with so much before it, the first one that is
wanted is the third."""


@dataclass(frozen=True, slots=True)
class NemoCache:
    """The frames that a stream keeps, float32."""

    embeds: torch.Tensor
    """(frames, width) the best of each speaker, once there were more than fit; else the oldest."""
    probs: torch.Tensor
    """(frames, speakers) who speaks in them."""
    fifo: torch.Tensor
    """(frames, width) the newest."""
    silence: torch.Tensor
    """(width,) the mean of those in which nobody spoke."""
    num_silent: torch.Tensor
    """() int64: how many these were."""

    def dump(self) -> bytes:
        """See ``Cache``."""
        data: bytes = save_tensors(
            {
                "embeds": self.embeds.cpu(),
                "probs": self.probs.cpu(),
                "fifo": self.fifo.cpu(),
                "silence": self.silence.cpu(),
                "num_silent": self.num_silent.cpu(),
            }
        )
        return data


class NemoSortformer:
    """The network. Implements ``Network``."""

    rows = 1
    left_frames = 1

    def __init__(self, path: Path, *, device: str, compute_type: str, threads: int) -> None:
        """Load it.

        Args:
            path: A ``.nemo`` file.
            device: ``cpu``, ``cuda`` or ``mps``.
            compute_type: ``float32``, ``float16``, ``bfloat16``, or ``auto``: see ``dtype_of``.
                Of what is kept, the numbers are always float32.
            threads: Cores, on a CPU. For the whole process: torch knows no other way.

        Raises:
            ModelError: The file holds no such model.
            DeviceError: The device is not there, or does not compute with such numbers.

        """
        dtype = dtype_of(compute_type, device, on_gpu=torch.float32)
        if device == "cpu":
            torch.set_num_threads(threads)
        model = _restored(path)
        try:
            self._model = model.to(device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as error:
            # A torch without CUDA says so with an assertion.
            raise DeviceError(f"the model cannot be loaded on {device}: {error}") from error
        # What a whole recording would be normalised by is not known yet.
        model.preprocessor.featurizer.normalize = None
        self._modules: Modules = model.sortformer_modules
        self._modules.spkcache_len = CACHE_FRAMES
        self._modules.fifo_len = FIFO_FRAMES
        self._modules.spkcache_update_period = UPDATE_FRAMES
        self.name = path.resolve().stem
        self.num_speakers: int = self._modules.n_spk
        self._width: int = self._modules.fc_d_model
        self._device = device
        self._numbers = {"device_type": device, "dtype": dtype, "enabled": dtype != torch.float32}

    def preset(self, look_ahead: int) -> Preset:
        """See ``Network``."""
        return calmest(PRESETS, look_ahead)

    def empty(self) -> NemoCache:
        """See ``Network``."""
        return self._kept(self._modules.init_streaming_state(1, True, self._device))

    def load(self, data: bytes) -> NemoCache:
        """See ``Network``."""
        try:
            found = NemoCache(**load_tensors(data))
        except (SafetensorError, TypeError) as error:
            raise CheckpointError(f"the checkpoint is damaged: {error}") from error
        num_frames = len(found.embeds)
        fits = (
            found.embeds.shape == (num_frames, self._width)
            and found.probs.shape == (num_frames, self.num_speakers)
            and found.fifo.shape == (len(found.fifo), self._width)
            and num_frames <= CACHE_FRAMES
            and len(found.fifo) <= FIFO_FRAMES
            and found.silence.shape == (self._width,)
            and found.num_silent.shape == ()
        )
        if not fits:
            raise CheckpointError("the checkpoint holds frames that are not this model's")
        kept = (found.embeds, found.probs, found.fifo, found.silence)
        if not all(tensor.isfinite().all() for tensor in kept):
            raise CheckpointError("the checkpoint is damaged: it holds something that is no number")
        num_silent = found.num_silent.to(self._device, torch.int64)
        embeds, probs, fifo, silence = (tensor.to(self._device).float() for tensor in kept)
        return NemoCache(embeds, probs, fifo, silence, num_silent)

    def hear(self, audio: FloatArray, caches: Sequence[Cache], chunk: int) -> list[Heard]:
        """See ``Network``."""
        try:
            with torch.inference_mode(), torch.autocast(**self._numbers):
                return self._hear(audio, [_own(cache) for cache in caches], chunk)
        except RuntimeError as error:
            # Also what is raised when memory or the device is gone.
            raise DeviceError(f"the model failed: {error}") from error

    def _hear(self, audio: FloatArray, caches: Sequence[NemoCache], chunk: int) -> list[Heard]:
        # A stream begins where its first chunk does, and not with a frame of silence.
        lefts = [self.left_frames if len(cache.fifo) else 0 for cache in caches]
        new = self._embedded(audio, lefts)
        rows = [
            torch.cat([cache.embeds, cache.fifo, frames.float()])
            for cache, frames in zip(caches, new, strict=True)
        ]
        lengths = self._lengths(rows)
        states, _ = self._model.frontend_encoder(
            processed_signal=pad_sequence(rows, batch_first=True),
            processed_signal_length=lengths,
            bypass_pre_encode=True,
        )
        said = self._model.forward_infer(states, lengths).float()
        return [
            self._heard(cache, frames, row[:length], chunk, left)
            for cache, frames, row, length, left in zip(
                caches, new, said, lengths.tolist(), lefts, strict=True
            )
        ]

    def _embedded(self, audio: FloatArray, lefts: Sequence[int]) -> list[torch.Tensor]:
        """(frames, width) of each stream, as many of them before its chunk as are to be heard."""
        num_frames = audio.shape[1] // FRAME_SAMPLES
        sound = pad(torch.from_numpy(audio).to(self._device), (_EARLY_SAMPLES, 0))
        windows, _ = self._model.preprocessor(input_signal=sound, length=self._lengths(sound))
        windows = windows[..., _EARLY_HOPS : _EARLY_HOPS + num_frames * _HOPS].transpose(1, 2)
        rows = [
            row[(self.left_frames - left) * _HOPS :]
            for row, left in zip(windows, lefts, strict=True)
        ]
        lengths = self._lengths(rows)
        frames, lengths = self._model.encoder.pre_encode(
            x=pad_sequence(rows, batch_first=True), lengths=lengths
        )
        return [row[:length] for row, length in zip(frames, lengths.tolist(), strict=True)]

    def _heard(
        self, cache: NemoCache, frames: torch.Tensor, said: torch.Tensor, chunk: int, left: int
    ) -> Heard:
        state: Modules = self._modules.init_streaming_state(1, True, self._device)
        state.spkcache[0, : len(cache.embeds)] = cache.embeds
        state.spkcache_preds[0, : len(cache.probs)] = cache.probs
        state.spkcache_lengths[0] = len(cache.embeds)
        state.fifo[0, : len(cache.fifo)] = cache.fifo
        state.fifo_lengths[0] = len(cache.fifo)
        state.mean_sil_emb[0] = cache.silence
        state.n_sil_frames[0] = cache.num_silent
        state, _ = self._modules.streaming_update_async(
            streaming_state=state,
            chunk=frames[None],
            chunk_lengths=self._lengths([frames]),
            preds=said[None],
            lc=left,
            rc=len(frames) - left - chunk,
        )
        new = said[left - len(frames) :]
        return Heard(new.cpu().numpy(), self._kept(state))

    def _kept(self, state: Modules) -> NemoCache:
        num_frames, num_newest = int(state.spkcache_lengths[0]), int(state.fifo_lengths[0])
        return NemoCache(
            state.spkcache[0, :num_frames],
            state.spkcache_preds[0, :num_frames],
            state.fifo[0, :num_newest],
            state.mean_sil_emb[0],
            state.n_sil_frames[0],
        )

    def _lengths(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.tensor([len(row) for row in rows], device=self._device)


def _restored(path: Path) -> Modules:
    """The model of a file, on the CPU.

    Raises:
        ModelError: It holds none that streams.

    """
    # What it tells of training goes past our log, and what its telemetry lacks goes into it.
    logging.getLogger("nv_one_logger").setLevel(logging.ERROR)
    from nemo.collections.asr.models import SortformerEncLabelModel
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.CRITICAL)
    try:
        model = SortformerEncLabelModel.restore_from(str(path), map_location=torch.device("cpu"))
    except (OSError, ValueError, LookupError, RuntimeError, tarfile.TarError) as error:
        raise ModelError(f"{path} holds no Sortformer: {error}") from error
    if not (isinstance(model, SortformerEncLabelModel) and model.streaming_mode):
        raise ModelError(f"{path} holds no Sortformer that streams")
    return model


def _own(cache: Cache) -> NemoCache:
    assert isinstance(cache, NemoCache)
    return cache
