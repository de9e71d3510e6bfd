"""Real speech with words of a script hidden in it, and engines that find them.

The low byte of every sample says which word is being said. The VAD hears speech as it was recorded;
the recogniser knows every word exactly, and the diarizer who says it, and from the samples alone:
audio that is lost, moved or doubled on its way to them shows as such.
"""

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.asr.recognizer import Hypothesis, Task, Window
from services.common.audio import FloatArray
from services.common.timeline import samples
from services.common.words import Word
from services.diarizer.diarizer import Diarizer
from tests.asr.harness import script
from tests.diarizer.harness import LevelDiarizer

MAX_WORDS = 255
NUM_SPEAKERS = 3
_TURN_WORDS = 4
"""So many words are one's, then somebody else speaks."""
_LOW = 0xFF
_WORD_S, _PAUSE_S = 0.25, 0.08
_LOUD = 300
"""Mean magnitude of 16-bit samples during which somebody surely speaks."""


def script_for(pcm: bytes) -> list[Word]:
    """Words where somebody speaks, as many as can be told apart."""
    levels = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32))
    pauses_s: list[float] = []
    pause_s, position = 0.0, 0
    length, step = samples(_WORD_S), samples(_PAUSE_S)
    while position + step + length < len(levels) and len(pauses_s) < MAX_WORDS:
        pause_s += _PAUSE_S
        position += step
        if levels[position : position + length].mean() > _LOUD:
            pauses_s.append(pause_s)
            pause_s = 0.0
            position += length
    return script(pauses_s, word_s=_WORD_S)


def mark(pcm: bytes, words: Sequence[Word]) -> bytes:
    """Hide a script in s16 samples."""
    marked = np.frombuffer(pcm, "<i2") & ~np.int16(_LOW)
    for number, word in enumerate(words):
        marked[word.first_sample : word.end_sample] |= number + 1
    return marked.astype("<i2").tobytes()


def speaker_of(number: int) -> int:
    """Who says a word, from 1, by its place in the script.

    They speak up one after the other, then take turns the other way round: whoever forgets them on
    the way, and numbers them anew, calls somebody otherwise.
    """
    turn = number // _TURN_WORDS
    return turn + 1 if turn < NUM_SPEAKERS else NUM_SPEAKERS - (turn + 1) % NUM_SPEAKERS


def marked_diarizer() -> Diarizer:
    """Knows who says the words that are hidden in speech, and numbers them as they appear."""

    def heard_in(heard: FloatArray) -> int:
        # Words are further apart than a frame is long.
        mark = int(_marks(heard).max(initial=0))
        return speaker_of(mark - 1) if mark else 0

    return LevelDiarizer(heard_in)


def _marks(heard: FloatArray) -> NDArray[np.int32]:
    return np.rint(heard * 32768).astype(np.int32) & _LOW


@dataclass(slots=True, eq=False)
class MarkedRecognizer:
    """Hears the words that are hidden in speech. The same windows always say the same.

    Like a model, it still knows a word of which less than half lies before the window: windows are
    cut where it is quiet, and that may be within a word of the script.
    """

    words: Sequence[Word]
    engine: str = "marks"
    language_codes: tuple[str, ...] = ("en",)
    tasks: tuple[Task, ...] = (Task.TRANSCRIBE,)
    max_window_samples: int = samples(30)

    def bucket(self, window: Window) -> Hashable:
        return window.temperature

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(map(ord, text))

    def recognize(self, windows: Sequence[Window]) -> list[Hypothesis]:
        return [self._hear(window) for window in windows]

    def _hear(self, window: Window) -> Hypothesis:
        marks = _marks(window.samples)
        edges = np.flatnonzero(np.diff(marks, prepend=0, append=0)).tolist()
        words = [
            replace(said, first_sample=max(said.first_sample, window.first_sample))
            for begin, end in pairwise(edges)
            if (said := self._said(int(marks[begin])))
            and window.first_sample + end == said.end_sample
            and 2 * (end - begin) > said.end_sample - said.first_sample
        ]
        return Hypothesis(
            tuple(words),
            "en",
            language_probability=1.0,
            no_speech_probability=0.0 if words else 0.9,
            avg_log_probability=-0.2 if words else 0.0,
        )

    def _said(self, mark: int) -> Word | None:
        return self.words[mark - 1] if 0 < mark <= len(self.words) else None


def save(words: Sequence[Word], path: Path) -> None:
    """Write a script for a process that is to hear it."""
    path.write_text(json.dumps([[w.text, w.first_sample, w.end_sample] for w in words]))


def load(path: Path) -> list[Word]:
    """Read a script."""
    return [
        Word(text, first, end, 0.9, (number,))
        for number, (text, first, end) in enumerate(json.loads(path.read_text()))
    ]
