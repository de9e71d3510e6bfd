"""Words -> subtitles of two short lines that can be read while they are shown.

The limits are those of common guides for subtitles (BBC, Netflix): two lines of 42 columns, 7 s,
about 20 characters a second.
"""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.common.timeline import SAMPLE_RATE_HZ, samples
from services.common.words import Word
from services.gateway.subtitle_layout import (
    MAX_COLUMNS_PER_S,
    MAX_SAMPLES,
    MIN_SAMPLES,
    Layout,
    Unit,
    columns,
    units_of,
)

_FLASH_SAMPLES = samples(0.04)
"""The shortest that a cue is shown, even if the next word is said at the same instant."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Text on the screen."""

    first_sample: int
    end_sample: int
    lines: tuple[str, ...]
    """One or two."""

    @property
    def text(self) -> str:
        """One line below the other."""
        return "\n".join(self.lines)


def cues(words: Sequence[Word], label_of: Callable[[int], str] | None = None) -> list[Cue]:
    """Lay out the words. Every one is shown, in order; no cue overlaps another.

    Args:
        words: What is said.
        label_of: What a speaker is called. A cue is then of one, and the first of each turn says of
            whom. None: who speaks does not matter.

    """
    return list(_cues(units_of(words, label_of)))


def srt(shown: Sequence[Cue]) -> str:
    """SubRip."""
    blocks = (
        f"{number}\n{_times(cue, ',')}\n{cue.text}\n\n" for number, cue in enumerate(shown, 1)
    )
    return "".join(blocks)


def vtt(shown: Sequence[Cue]) -> str:
    """WebVTT."""
    blocks = (f"{_times(cue, '.')}\n{html.escape(cue.text, quote=False)}\n\n" for cue in shown)
    return "WEBVTT\n\n" + "".join(blocks)


def _cues(units: Sequence[Unit]) -> Iterator[Cue]:
    layout = Layout(units)
    clock = 0
    for first, end in layout.parting():
        lines = layout.lines(first, end)
        start = max(clock, units[first].first_sample)
        read = sum(map(columns, lines)) * SAMPLE_RATE_HZ // MAX_COLUMNS_PER_S
        wanted = max(units[end - 1].end_sample, start + max(MIN_SAMPLES, read))
        latest = start + MAX_SAMPLES
        if end < len(units):
            latest = min(latest, units[end].first_sample)
        clock = max(min(wanted, latest), start + _FLASH_SAMPLES)
        yield Cue(start, clock, lines)


def _times(cue: Cue, point: str) -> str:
    return f"{_clock(cue.first_sample, point)} --> {_clock(cue.end_sample, point)}"


def _clock(sample: int, point: str) -> str:
    whole_s, ms = divmod(sample * 1000 // SAMPLE_RATE_HZ, 1000)
    minutes, s = divmod(whole_s, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{s:02}{point}{ms:03}"
