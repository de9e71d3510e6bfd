"""A window in Whisper's units: mel frames of 10 ms, encoder frames of 20 ms, text positions."""

from dataclasses import dataclass

import numpy as np

from services.asr.recognizer import Window
from services.common.audio import FloatArray
from services.common.timeline import SAMPLE_RATE_HZ

HOP_SAMPLES = 160
"""One mel frame per 10 ms."""
FRAME_SAMPLES = 2 * HOP_SAMPLES
"""One encoder frame per 20 ms: the convolution's stride."""
MAX_MEL_FRAMES = 3000
TEXT_POSITIONS = 448
MAX_PROMPT_TOKENS = TEXT_POSITIONS // 2 - 1
"""Half of the text positions, less the token that starts it: what Whisper was trained with."""

_TOKENS_PER_S = 11.25
"""Nobody speaks faster: more tokens than this are a loop."""
_MIN_TOKENS = 7


@dataclass(frozen=True, slots=True)
class Framing:
    """How much the encoder hears: the window, and silence behind it.

    Whisper was trained on 30 s. It does with much less, which on a CPU costs 8-13 times less; but
    sound that breaks off at once, or is very short, makes it loop.
    """

    pad_s: float
    """Silence behind the window."""
    min_s: float
    """The least, silence included."""
    bucket_s: float
    """Lengths are rounded up to a multiple of this."""

    def mel_frames(self, window: Window) -> int:
        """Frames that the encoder gets for a window: a function of its own length alone."""
        bucket = max(2, round(self.bucket_s * 100) // 2 * 2)
        heard = heard_mel_frames(window) + round(self.pad_s * 100)
        rounded = -(-max(heard, round(self.min_s * 100)) // bucket) * bucket
        return min(rounded, MAX_MEL_FRAMES)

    def padded(self, window: Window) -> FloatArray:
        """The window and the silence, for as many frames."""
        lacking = self.mel_frames(window) * HOP_SAMPLES - len(window.samples)
        return np.pad(window.samples, (0, max(0, lacking)))


def heard_mel_frames(window: Window) -> int:
    """Mel frames that the audio reaches into."""
    return -(-len(window.samples) // HOP_SAMPLES)


def align_mel_frames(window: Window) -> int:
    """Mel frames in which its words may lie: at least one encoder frame."""
    return max(2, len(window.samples) // HOP_SAMPLES)


def max_tokens(window: Window) -> int:
    """How many tokens the window can say."""
    return _MIN_TOKENS + int(len(window.samples) / SAMPLE_RATE_HZ * _TOKENS_PER_S)
