"""Log-mel spectrograms of many windows at once, on the device.

The same numbers as openai/whisper's ``audio.py`` for each window alone: a window's loudest value
bounds its own quietest, and no other window's. Behind what was heard all is 0, as in training.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from services.asr.engines.whisper_window import HOP_SAMPLES
from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ

_FFT_SAMPLES = 400
_RANGE = 8.0
"""Powers of ten between the loudest and the quietest value that is kept."""


class LogMel:
    """Makes spectrograms on one device."""

    def __init__(self, num_mels: int, device: str) -> None:
        filters = mel_filter_bank(
            num_frequency_bins=1 + _FFT_SAMPLES // 2,
            num_mel_filters=num_mels,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE_HZ / 2,
            sampling_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        self._filters = torch.from_numpy(filters.T.astype(np.float32)).to(device)
        self._window = torch.hann_window(_FFT_SAMPLES, device=device)
        self._device = device

    def __call__(self, heard: Sequence[FloatArray], num_frames: int) -> torch.Tensor:
        """Spectrograms of windows.

        Args:
            heard: Samples of each, float32.
            num_frames: Mel frames that are made of each, of 10 ms.

        Returns:
            (windows, num_mels, num_frames) float32.

        """
        length = num_frames * HOP_SAMPLES
        sound = np.zeros((len(heard), length + _FFT_SAMPLES), np.float32)
        for row, samples in enumerate(heard):
            sound[row, : min(len(samples), length)] = samples[:length]
        spectrum = torch.stft(
            torch.from_numpy(sound).to(self._device),
            _FFT_SAMPLES,
            HOP_SAMPLES,
            window=self._window,
            return_complex=True,
        )[..., :num_frames]
        power = (self._filters @ spectrum.abs().square()).clamp_min(1e-10).log10()
        # A frame is centred on its first sample, so the last one has nothing but its first half.
        valid = torch.tensor([1 + len(samples) // HOP_SAMPLES for samples in heard])
        silent = (torch.arange(num_frames) >= valid[:, None])[:, None].to(self._device)
        loudest = power.masked_fill(silent, float("-inf")).amax((1, 2), keepdim=True)
        return (((torch.maximum(power, loudest - _RANGE)) + 4) / 4).masked_fill(silent, 0.0)
