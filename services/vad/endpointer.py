"""Probabilities -> where speech starts and ends.

Hysteresis with a hangover. Speech starts at the first window that reaches the onset threshold, once
the windows from there on have stayed above the offset threshold for ``min_speech``. It ends after
the last window above the offset threshold, once ``hangover`` has passed without another.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

from services.common.timeline import SAMPLE_RATE_HZ
from services.vad.detector import WINDOW_SAMPLES

_RECENT_SAMPLES = 5 * SAMPLE_RATE_HZ
"""How far back speech that became too long may be cut."""


@dataclass(frozen=True, slots=True)
class Endpointing:
    """When speech counts as started and ended. Durations in samples."""

    onset_threshold: float
    offset_threshold: float
    min_speech: int
    hangover: int
    max_speech: int


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody started to speak."""

    first_sample: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Nobody speaks any more."""

    end_sample: int


Event: TypeAlias = SpeechStarted | SpeechEnded


@dataclass(frozen=True, slots=True)
class Heard:
    """How far the audio has been heard; see ``voxmesh.vad.v1.Heard``."""

    through_sample: int
    settled_through_sample: int
    speaking: bool
    probability: float


@dataclass(slots=True)
class EndpointerState:
    """All that an endpointer remembers."""

    through_sample: int
    """End of the last whole window."""
    floor_sample: int
    """End of the last flush: what was before it is decided, no speech starts there any more."""
    probability: float = 0.0
    """Of the last window."""
    start_sample: int | None = None
    """Where speech started, or may have started."""
    speaking: bool = False
    """Whether the start counts."""
    end_sample: int = 0
    """Where speech ends unless it goes on."""
    quietest: float = inf
    """Lowest probability among the windows where the speech may be cut."""
    quietest_sample: int = 0
    """Where that window starts."""


class Endpointer:
    """Follows one stream, window by window."""

    def __init__(self, settings: Endpointing, state: EndpointerState) -> None:
        self._settings = settings
        self._state = replace(state)

    @classmethod
    def starting_at(cls, first_sample: int, settings: Endpointing) -> "Endpointer":
        """An endpointer that has heard nothing."""
        return cls(settings, EndpointerState(first_sample, first_sample))

    @property
    def state(self) -> EndpointerState:
        """A copy of all that it remembers."""
        return replace(self._state)

    @property
    def heard(self) -> Heard:
        """How far it has heard, flushes included."""
        state = self._state
        through = max(state.through_sample, state.floor_sample)
        open_start = None if state.speaking else state.start_sample
        settled = through if open_start is None else open_start
        return Heard(through, settled, state.speaking, state.probability)

    def push(self, probability: float) -> list[Event]:
        """Hear the next window."""
        return self._hear(probability, self._state.through_sample + WINDOW_SAMPLES)

    def skip(self, num_windows: int) -> list[Event]:
        """Hear windows without speech, any number of them at no cost."""
        events: list[Event] = []
        state = self._state
        while num_windows and state.start_sample is not None:
            events += self.push(0.0)
            num_windows -= 1
        if num_windows:
            state.through_sample += num_windows * WINDOW_SAMPLES
            state.probability = 0.0
        return events

    def flush(self, end_sample: int, probability: float | None) -> list[Event]:
        """Decide everything up to a position within the next window, which is heard again later.

        A start that is still too short counts: it may be the beginning of a word, and whoever
        flushes wants its audio now. Speech that goes on stays open.

        Args:
            end_sample: End of everything heard.
            probability: Of the window that is not yet complete; ``None``: there is none.

        """
        state = self._state
        settings = self._settings
        events: list[Event] = []
        if probability is not None:
            state.probability = probability
        if not state.speaking:
            if state.start_sample is None:
                if probability is not None and probability >= settings.onset_threshold:
                    state.start_sample = max(state.through_sample, state.floor_sample)
            elif probability is not None and probability < settings.offset_threshold:
                state.start_sample = None
            if state.start_sample is not None:
                events.append(self._start(state.start_sample, end_sample))
        state.floor_sample = end_sample
        return events

    def finish(self, end_sample: int, probability: float | None) -> list[Event]:
        """Hear the window that is not complete as the last one, and end speech that is open.

        Args:
            end_sample: End of the audio.
            probability: Of the window that is not complete; ``None``: there is none.

        """
        state = self._state
        events = [] if probability is None else self._hear(probability, end_sample)
        state.through_sample = state.floor_sample = end_sample
        if state.speaking:
            events.append(SpeechEnded(state.end_sample))
        state.start_sample = None
        state.speaking = False
        return events

    def _hear(self, probability: float, end_sample: int) -> list[Event]:
        state = self._state
        first_sample = state.through_sample
        state.through_sample = end_sample
        state.probability = probability
        if state.speaking:
            return self._follow(probability, first_sample)
        return self._listen(probability, first_sample)

    def _listen(self, probability: float, first_sample: int) -> list[Event]:
        """Hear a window while nobody speaks."""
        state = self._state
        if state.start_sample is None:
            if probability < self._settings.onset_threshold:
                return []
            state.start_sample = max(first_sample, state.floor_sample)
        elif probability < self._settings.offset_threshold:
            state.start_sample = None
            return []
        if state.through_sample - state.start_sample < self._settings.min_speech:
            return []
        return [self._start(state.start_sample, state.through_sample)]

    def _follow(self, probability: float, first_sample: int) -> list[Event]:
        """Hear a window while somebody speaks."""
        state = self._state
        settings = self._settings
        assert state.start_sample is not None
        recent = min(_RECENT_SAMPLES, settings.max_speech // 2)
        cut_from = state.start_sample + settings.max_speech - recent
        if first_sample >= cut_from and probability <= state.quietest:
            state.quietest = probability
            state.quietest_sample = first_sample
        if probability >= settings.offset_threshold:
            state.end_sample = state.through_sample
            if state.end_sample - state.start_sample > settings.max_speech:
                cut = state.quietest_sample
                return [SpeechEnded(cut), self._start(cut, state.end_sample)]
        elif state.through_sample - state.end_sample >= settings.hangover:
            state.start_sample = None
            state.speaking = False
            return [SpeechEnded(state.end_sample)]
        return []

    def _start(self, first_sample: int, end_sample: int) -> SpeechStarted:
        state = self._state
        state.start_sample = first_sample
        state.speaking = True
        state.end_sample = end_sample
        state.quietest = inf
        return SpeechStarted(first_sample)
