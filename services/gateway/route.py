"""What one stage is to hear of a lane, in order: audio, gaps, and places to decide everything."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeAlias

from services.common.ring import Ring
from services.common.timeline import samples_of_ms

MESSAGE_SAMPLES = samples_of_ms(100)
"""Audio in one message: small enough to be early, large enough to be cheap."""


@dataclass(frozen=True, slots=True)
class Audio:
    """A stretch that the stage hears."""

    first_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that the stage is told of but does not hear."""

    first_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class FlushMark:
    """A place where everything before is to be decided."""

    sample: int


@dataclass(frozen=True, slots=True)
class End:
    """There is nothing more."""


Piece: TypeAlias = Audio | Gap | FlushMark | End


@dataclass(frozen=True, slots=True)
class Sound:
    """The audio of a stretch, as much as one message holds."""

    first_sample: int
    end_sample: int
    pcm: bytes
    """s16le 16 kHz mono."""


Heard: TypeAlias = Sound | Gap | FlushMark | End


class Route:
    """A log that only grows at its end, so that reading it again gives the same again."""

    def __init__(self) -> None:
        self._stretches: list[Audio | Gap] = []
        self._marks: list[int] = []
        self._complete = False
        self.end_sample = 0
        """Position after what is routed."""

    def add_audio(self, end_sample: int) -> None:
        """Route up to a position as audio; nothing, if it is routed already."""
        if end_sample > self.end_sample:
            self._extend(Audio(self.end_sample, end_sample))

    def add_gap(self, end_sample: int) -> None:
        """Route up to a position as a gap; nothing, if it is routed already."""
        if end_sample > self.end_sample:
            self._extend(Gap(self.end_sample, end_sample))

    def add_mark(self) -> int:
        """Ask for a decision on everything routed; the mark's position."""
        if not self._marks or self._marks[-1] < self.end_sample:
            self._marks.append(self.end_sample)
        return self.end_sample

    def complete(self) -> None:
        """Nothing will be added any more."""
        self._complete = True

    def next_piece(self, position: int, flushed_sample: int) -> Piece | None:
        """What comes at a position; nothing, if that is not known yet.

        Args:
            position: Where the reader stands; at or after what was forgotten.
            flushed_sample: Marks up to this one are none of the reader's business; -1: none is.

        """
        ahead = bisect_right(self._marks, flushed_sample)
        passed = bisect_right(self._marks, position)
        if passed > ahead:
            return FlushMark(self._marks[passed - 1])
        if position >= self.end_sample:
            return End() if self._complete else None
        stretch = self._stretches[self._index(position)]
        end_sample = stretch.end_sample
        if (following := max(ahead, passed)) < len(self._marks):
            end_sample = min(end_sample, self._marks[following])
        return type(stretch)(position, end_sample)

    def first_audio(self, position: int) -> int:
        """The first position from here that is heard; the end of the route, if none is yet."""
        if position < self.end_sample:
            for stretch in self._stretches[self._index(position) :]:
                if isinstance(stretch, Audio):
                    return max(position, stretch.first_sample)
        return max(position, self.end_sample)

    def forget(self, before_sample: int) -> None:
        """Drop what nobody will read again."""
        keep = 0
        while keep < len(self._stretches) and self._stretches[keep].end_sample <= before_sample:
            keep += 1
        del self._stretches[:keep]
        # The last mark stays: whoever asks for one at the same position is asking again.
        del self._marks[: max(0, bisect_right(self._marks, before_sample) - 1)]

    def _index(self, position: int) -> int:
        index = bisect_right(self._stretches, position, key=lambda stretch: stretch.first_sample)
        if index == 0:
            raise IndexError(f"{position} was forgotten")
        return index - 1

    def _extend(self, stretch: Audio | Gap) -> None:
        last = self._stretches[-1] if self._stretches else None
        if type(last) is type(stretch):
            self._stretches[-1] = type(stretch)(last.first_sample, stretch.end_sample)
        else:
            self._stretches.append(stretch)
        self.end_sample = stretch.end_sample


class RoutedAudio:
    """A route with its audio, as a stage reads it."""

    def __init__(self, route: Route, ring: Ring) -> None:
        """Let stages read it.

        Args:
            route: What they are to hear.
            ring: Its audio, as far back as any of them may start.

        """
        self._route = route
        self._ring = ring

    def read(
        self, replay_sample: int, settled_sample: int, flushed_sample: int
    ) -> "RoutedAudioReader":
        """What a stream is told, from its first message on.

        Args:
            replay_sample: Where it starts.
            settled_sample: What lies before it is being rebuilt: nothing is decided there.
            flushed_sample: The last mark that was answered.

        """
        # Marks behind the checkpoint are asked again, even those answered: a stage that is to come
        # to the same results must be asked in the same places.
        flushed = min(flushed_sample, settled_sample)
        return RoutedAudioReader(self._route, self._ring, replay_sample, settled_sample, flushed)


class RoutedAudioReader:
    """Where one stream stands in a route."""

    def __init__(
        self, route: Route, ring: Ring, position: int, settled_sample: int, flushed_sample: int
    ) -> None:
        self._route = route
        self._ring = ring
        self._position = position
        self._settled_sample = settled_sample
        self._flushed_sample = flushed_sample

    def next(self) -> Heard | None:
        """What comes next; None: that is not known yet."""
        position, hidden = self._position, self._flushed_sample
        if position < self._settled_sample:
            hidden = max(hidden, self._settled_sample)
        piece = self._route.next_piece(position, hidden)
        match piece:
            case Audio():
                end = min(piece.end_sample, position + MESSAGE_SAMPLES)
                self._position = end
                return Sound(position, end, self._ring.read(position, end))
            case Gap():
                self._position = piece.end_sample
            case FlushMark(sample):
                self._flushed_sample = sample
        return piece
