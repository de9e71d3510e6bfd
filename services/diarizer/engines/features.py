"""Sound as speaker models take it: 80 Mel bands, 100 times a second, as in Kaldi.

Source: Povey et al., "The Kaldi speech recognition toolkit", 2011; ``kaldi-native-fbank``.
"""

import kaldi_native_fbank as knf
import numpy as np

from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ

HOP_SAMPLES = 160
"""Between two features."""
_SPAN_SAMPLES = 400
"""What one feature is made of."""


def num_features(num_samples: int) -> int:
    """How many features so many samples give."""
    return max(0, 1 + (num_samples - _SPAN_SAMPLES) // HOP_SAMPLES)


def mel_features(audio: FloatArray, num_mels: int) -> FloatArray:
    """(num_samples,) float32 in [-1, 1) -> (num_features, num_mels), their mean taken away."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE_HZ
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = num_mels
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE_HZ, audio)
    rows = [bank.get_frame(index) for index in range(bank.num_frames_ready)]
    found: FloatArray = np.array(rows, np.float32).reshape(-1, num_mels)
    found -= found.mean(axis=0, keepdims=True)
    return found


def piece_of(first_sample: int, end_sample: int, most: int) -> tuple[int, int]:
    """The samples that the newest features before a position are made of.

    Args:
        first_sample: Where sound begins, at a feature of even number.
        end_sample: The position.
        most: So many features, at most. The first of them has an even number.

    """
    end = num_features(end_sample)
    begin = max(first_sample // HOP_SAMPLES, -(-(end - most) // 2) * 2)
    if begin >= end:
        return first_sample, first_sample
    return begin * HOP_SAMPLES, (end - 1) * HOP_SAMPLES + _SPAN_SAMPLES
