"""Whose window is decoded next, and with which others.

Times are seconds on a clock that is the caller's; nothing here waits.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.asr.recognizer import Window

_SPEAKING_S = 5.0
"""A live stream that asked for nothing for so long does not speak."""
_FINAL_WITHIN_S = 0.3
"""Speech has paused: somebody looks at the caption and waits for its last word."""
_PRICE_STEPS = 0.75
"""A live stream is entitled to four decodings in three steps: those at pauses come besides."""
_MAX_LEAD_S = 10.0
"""However far ahead of its pace a stream has been, it is soon forgiven."""
_FILE_TURN_S = 10.0
"""A file that has waited for so long gets a turn, but no two files within this time."""


@dataclass(slots=True, eq=False)
class Seat:
    """A stream's place among the others; it asks for one window at a time."""

    live: bool
    asked_s: float
    """When it last asked for a decoding; at first, when it came."""
    waiting: bool = False
    _paid_until_s: float = float("-inf")

    def speaks(self, now_s: float) -> bool:
        """Whether it has lately been asking for decodings."""
        return self.live and (self.waiting or now_s - self.asked_s < _SPEAKING_S)

    def ask(self, now_s: float, *, step_s: float, final: bool) -> float:
        """Ask for a decoding; by when it should be done.

        A live stream that is more than a step ahead of what it is entitled to is due later by as
        much: one that sends faster than people speak gets what the others leave, and overtakes
        nobody (the constant bandwidth server of Abeni and Buttazzo, 1998).
        """
        self.asked_s = now_s
        if not self.live:
            return now_s
        lead_s = max(0.0, self._paid_until_s - now_s)
        self._paid_until_s = now_s + min(lead_s + _PRICE_STEPS * step_s, _MAX_LEAD_S)
        if lead_s > step_s:
            return now_s + lead_s
        return now_s + (_FINAL_WITHIN_S if final else step_s)


@dataclass(slots=True, eq=False)
class Turn:
    """A window that waits to be decoded."""

    window: Window
    bucket: Hashable
    """Windows of equal buckets may share a batch."""
    live: bool
    asked_s: float
    deadline_s: float

    def urgency(self) -> tuple[bool, float]:
        """Files after everything live; then the nearest deadline."""
        return not self.live, self.deadline_s


TurnT = TypeVar("TurnT", bound=Turn)


class Turns(Generic[TurnT]):
    """The windows that wait: at most one for each stream."""

    def __init__(self) -> None:
        self._waiting: list[TurnT] = []
        self._file_turn_s = float("-inf")

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def live(self) -> int:
        """How many live ones wait."""
        return sum(turn.live for turn in self._waiting)

    def add(self, turn: TurnT) -> None:
        """Let a window wait."""
        self._waiting.append(turn)

    def drop(self, turn: TurnT) -> None:
        """Forget a window whose stream has left, unless it has been taken."""
        if turn in self._waiting:
            self._waiting.remove(turn)

    def like_next(self, now_s: float) -> list[TurnT]:
        """The window whose turn it is, and those that may share its batch, most urgent first.

        Live windows go first, those with the nearest deadline before others. Only a file that has
        waited for ten seconds goes before them, and the next one ten seconds later: so files delay
        live streams by at most one batch at a time, and none waits for ever.
        """
        ranked = sorted(self._waiting, key=Turn.urgency)
        if not ranked:
            return []
        files = [turn for turn in ranked if not turn.live]
        overdue = files and now_s - max(files[0].asked_s, self._file_turn_s) >= _FILE_TURN_S
        first = files[0] if overdue else ranked[0]
        return [turn for turn in ranked if (turn.live, turn.bucket) == (first.live, first.bucket)]

    def take(self, batch: Sequence[TurnT], now_s: float) -> None:
        """Let some go: they are being decoded."""
        taken = set(batch)
        self._waiting = [turn for turn in self._waiting if turn not in taken]
        if not all(turn.live for turn in batch):
            self._file_turn_s = now_s
