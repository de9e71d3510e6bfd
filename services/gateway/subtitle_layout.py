"""Where to part text that is spoken, so that it fits the screen and reads well.

Found by dynamic programming over all the text: parting well here may mean parting badly there.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from services.common.timeline import samples, seconds
from services.common.words import Word
from services.gateway.segments import CLAUSE_END, SENTENCE_END

MAX_COLUMNS = 42
"""Of a line. An ideograph takes two."""
MAX_SAMPLES = samples(7)
"""The longest that text is shown."""
MIN_SAMPLES = samples(1)
"""Text is shown at least so long, where what follows allows it."""
MAX_COLUMNS_PER_S = 20
"""As fast as people read, where the speaker allows it."""

_BREATH_SAMPLES = samples(0.3)
"""Silence at which text may as well be parted."""
_SILENCE_SAMPLES = samples(1.5)
"""Silence at which text is always parted."""
_FEW_COLUMNS = 12


@dataclass(frozen=True, slots=True)
class Unit:
    """Text that is never parted, and when it is said."""

    text: str
    spaced: bool
    """Whether a space belongs before it."""
    first_sample: int
    end_sample: int
    turns: bool = False
    """Whether somebody else begins to speak with it."""


def columns(text: str) -> int:
    """How wide a text is, in half-width columns."""
    return sum(map(_width, text))


@lru_cache(maxsize=4096)
def _width(character: str) -> int:
    if unicodedata.category(character) in {"Cf", "Me", "Mn"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def units_of(words: Sequence[Word], label_of: Callable[[int], str] | None = None) -> list[Unit]:
    """Part words where a line may be broken: at white space, and between ideographs.

    No unit is wider than a line, and none begins before the one before it.

    Args:
        words: What is said.
        label_of: What a speaker is called, which stands before their first word; None: who speaks
            does not matter.

    """
    units: list[Unit] = []
    clock = 0
    spaced = True
    speaker: int | None = None
    for word in words:
        # Engines place words by attention, which now and then steps back.
        clock = max(clock, word.first_sample)
        end = max(clock, word.end_sample)
        for character in word.text:
            if character.isspace():
                spaced = True
                continue
            if label_of and word.speaker != speaker:
                speaker = word.speaker
                # Empty lines in it would end the cue.
                label = " ".join(f"{label_of(speaker)}:".split())
                units.append(Unit(f"{label} {character}", True, clock, end, turns=True))
            elif units and not spaced and not _may_break(units[-1].text[-1], character):
                last = units[-1]
                units[-1] = replace(last, text=last.text + character, end_sample=end)
            else:
                units.append(Unit(character, spaced, clock, end))
            spaced = False
    return [part for unit in units for part in _fitting(unit)]


def _may_break(before: str, after: str) -> bool:
    """Whether a line may be broken between two characters. Source: Unicode UAX 14, simplified."""
    if unicodedata.category(before) in {"Ps", "Pi"}:
        return False
    if unicodedata.category(after) in {"Pe", "Pf", "Po", "Lm", "Mn", "Me", "Cf"}:
        return False
    return _is_ideograph(before) or _is_ideograph(after)


def _is_ideograph(character: str) -> bool:
    """Whether words of its script run on without spaces; Hangul is as wide but is spaced."""
    wide = unicodedata.east_asian_width(character) == "W"
    return wide and not "\uac00" <= character <= "\ud7a3"


def _fitting(unit: Unit) -> Iterator[Unit]:
    """Part a unit that is wider than a line, each part with its share of the time."""
    if columns(unit.text) <= MAX_COLUMNS:
        yield unit
        return
    parts = [""]
    for character in unit.text:
        if columns(parts[-1]) + _width(character) > MAX_COLUMNS:
            parts.append("")
        parts[-1] += character
    length, done = unit.end_sample - unit.first_sample, 0
    for part in parts:
        first = unit.first_sample + length * done // len(unit.text)
        done += len(part)
        end = unit.first_sample + length * done // len(unit.text)
        begins = done == len(part)
        yield Unit(part, unit.spaced and begins, first, end, turns=unit.turns and begins)


class Layout:
    """Units in a row, and what it costs to show some of them together."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units
        self._ends = [0]
        self._sentences = [0]
        for index, unit in enumerate(units):
            self._ends.append(self._ends[-1] + unit.spaced + columns(unit.text))
            self._sentences.append(self._sentences[-1] + self._ends_sentence(index + 1))

    def parting(self) -> list[tuple[int, int]]:
        """The units of each cue, from the first up to, not including, the second index."""
        best = [0.0] + [float("inf")] * len(self._units)
        origin = [0] * len(best)
        for end in range(1, len(best)):
            for first in self._starts(end):
                cost = best[first] + self._cost(first, end)
                if cost < best[end]:
                    best[end], origin[end] = cost, first
        borders = [len(self._units)]
        while borders[-1]:
            borders.append(origin[borders[-1]])
        return list(pairwise(reversed(borders)))

    def lines(self, first: int, end: int) -> tuple[str, ...]:
        """One line if the units fit it, else two of about the same length."""
        if self._columns(first, end) <= MAX_COLUMNS:
            return (self._text(first, end),)

        def cost(middle: int) -> tuple[bool, float]:
            above, below = self._columns(first, middle), self._columns(middle, end)
            sense = 10 if CLAUSE_END.search(self._units[middle - 1].text) else 0
            sense += 15 if self._ends_sentence(middle) else 0
            return max(above, below) > MAX_COLUMNS, abs(above - below) - sense

        middle = min(range(first + 1, end), key=cost)
        return self._text(first, middle), self._text(middle, end)

    def _text(self, first: int, end: int) -> str:
        shown = self._units[first:end]
        return "".join(f"{' ' if unit.spaced else ''}{unit.text}" for unit in shown).strip()

    def _columns(self, first: int, end: int) -> int:
        return self._ends[end] - self._ends[first] - self._units[first].spaced

    def _starts(self, end: int) -> Iterator[int]:
        """Where a cue may begin that ends here, latest first."""
        last = self._units[end - 1]
        yield end - 1
        for first in range(end - 2, -1, -1):
            following = self._units[first + 1]
            pause = following.first_sample - self._units[first].end_sample
            too_long = last.end_sample - self._units[first].first_sample > MAX_SAMPLES
            parted = pause >= _SILENCE_SAMPLES or following.turns
            if parted or too_long or not self._fits(first, end):
                return
            yield first

    def _fits(self, first: int, end: int) -> bool:
        """Whether two lines hold the units: as many as go on the first, the rest below."""
        room = MAX_COLUMNS + self._ends[first] + self._units[first].spaced
        middle = bisect_right(self._ends, room) - 1
        return middle >= end or self._columns(middle, end) <= MAX_COLUMNS

    def _cost(self, first: int, end: int) -> float:
        """How badly the units read as a cue; 1 is a blemish, 3 is a fault."""
        cost = 0.6 + 0.7 * (self._sentences[end - 1] - self._sentences[first])
        width = self._columns(first, end)
        if end < len(self._units):
            cost += self._cost_of_parting(end)
            shown = self._units[end].first_sample - self._units[first].first_sample
            shown_s = seconds(max(1, min(shown, MAX_SAMPLES)))
            cost += min(8.0, max(0.0, width / shown_s - MAX_COLUMNS_PER_S) / 5)
            cost += 1.5 * max(0.0, seconds(MIN_SAMPLES) - shown_s)
        whole = self._ends_sentence(end) and (first == 0 or self._ends_sentence(first))
        return cost + (width < _FEW_COLUMNS and not whole)

    def _cost_of_parting(self, at: int) -> float:
        before, after = self._units[at - 1], self._units[at]
        if self._ends_sentence(at):
            return 0.0
        cost = 1.0 if CLAUSE_END.search(before.text) else 3.0
        heard = after.first_sample - before.end_sample >= _BREATH_SAMPLES
        return cost * 0.4 if heard else cost

    def _ends_sentence(self, at: int) -> bool:
        """Whether a sentence ends before the unit at an index."""
        if not SENTENCE_END.search(self._units[at - 1].text):
            return False
        return at == len(self._units) or not self._units[at].text[0].islower()
