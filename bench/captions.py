"""What a session of ``WS /asr`` in full mode showed, as what a session of ``Converse`` is told.

That protocol says neither when words were spoken nor which of them are new: each message has the
whole of the lines, which stay, and of the buffer behind them, which may change.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

from bench.converse import Captions, Heard
from bench.corpus import TimedWord
from bench.score import normalize

_SILENCE = -2


@dataclass(frozen=True, slots=True)
class Screen:
    """What stood on the screen from a moment on."""

    at_s: float
    """Since the audio began."""
    lines: str
    buffer: str


def screens(messages: Iterable[tuple[float, str]]) -> list[Screen]:
    """What changed on the screen, and when, of all messages with their times."""
    shown: list[Screen] = []
    for at_s, message in messages:
        state = json.loads(message)
        if "type" in state or "lines" not in state:
            continue
        lines = [line["text"] or "" for line in state["lines"] if line["speaker"] != _SILENCE]
        buffers = [state.get("buffer_diarization"), state.get("buffer_transcription")]
        now = Screen(at_s, " ".join(lines), " ".join(buffer or "" for buffer in buffers))
        if not shown or (now.lines, now.buffer) != (shown[-1].lines, shown[-1].buffer):
            shown.append(now)
    return shown


def heard(shown: Sequence[Screen], *, language_code: str, end_s: float, finished_s: float) -> Heard:
    """Tell final words from the rest.

    A word is final from when the lines began with the transcript up to it, and never again did not;
    a comma that joins it later is no change. When it was spoken is not told: not a number.

    Args:
        shown: In order.
        language_code: Says how words are compared.
        end_s: When the end of the audio was said, in seconds since it began.
        finished_s: When ``ready_to_stop`` came.

    """
    transcript = shown[-1].lines.split() if shown else []
    keys = _keys(transcript, language_code)
    lines = [screen.lines.split() for screen in shown]
    agreed = [_common_prefix(_keys(words, language_code), keys) for words in lines]
    final = list(accumulate(reversed(agreed), min))[::-1]
    told = Heard(end_s=end_s, finished_s=finished_s)
    done = 0
    for screen, words, upto in zip(shown, lines, final, strict=True):
        new = tuple(TimedWord(f" {word}", math.nan, math.nan) for word in transcript[done:upto])
        tail = " ".join([*words[upto:], screen.buffer]).strip()
        told.captions.append(Captions(screen.at_s, new, tail))
        done = upto
    return told


def _keys(words: Iterable[str], language_code: str) -> list[str]:
    return ["".join(normalize(word, language_code)) for word in words]


def _common_prefix(left: Sequence[str], right: Sequence[str]) -> int:
    equal = (one == other for one, other in zip(left, right, strict=False))
    return sum(takewhile(bool, equal))
