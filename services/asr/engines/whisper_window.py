"""A window in Whisper's units: mel frames of 10 ms, encoder frames of 20 ms, text positions."""

from services.asr.recognizer import Window
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


def heard_mel_frames(window: Window) -> int:
    """Mel frames that the audio reaches into."""
    return -(-len(window.samples) // HOP_SAMPLES)


def align_mel_frames(window: Window) -> int:
    """Mel frames in which its words may lie: at least one encoder frame."""
    return max(2, len(window.samples) // HOP_SAMPLES)


def max_tokens(window: Window) -> int:
    """How many tokens the window can say."""
    return _MIN_TOKENS + int(len(window.samples) / SAMPLE_RATE_HZ * _TOKENS_PER_S)
