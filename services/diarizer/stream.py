"""One stream: audio, gaps and flushes in, turns out. It waits only for the model."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import samples
from services.common.wire import MAX_POSITION
from services.diarizer import checkpoint
from services.diarizer.batcher import Batcher, Seat
from services.diarizer.checkpoint import State
from services.diarizer.diarizer import Finding, Step, Wishes
from services.diarizer.heard import HeardClock
from services.diarizer.turns import Turn, turns_of

PAUSE_SAMPLES = samples(2.0)
"""What is heard behind a longer gap is not looked at together with what came before it: so audio
that a successor needs is never old."""
_CHECKPOINT_SAMPLES = samples(20.0)
"""A successor is not to need older audio than that."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Who spoke in a stretch of the lane. Takes the place of what was said of it before."""

    turns: tuple[Turn, ...]
    first_sample: int
    through_sample: int
    settled_sample: int
    """Position before which this is for good."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a successor needs to go on from a position."""

    replay_from_sample: int
    through_sample: int
    state: bytes


Event: TypeAlias = Turns | Snapshot


class Stream:
    """Follows one lane. What it finds does not depend on how the audio was cut.

    Steps lie on a grid on the clock of what was heard, which a flush does not move: it decides what
    there is, in a step of its own.
    """

    def __init__(
        self,
        batcher: Batcher,
        seat: Seat,
        *,
        look_ahead: int,
        wishes: Wishes,
        enrolled: tuple[FloatArray, ...],
        first_sample: int,
        state: bytes | None,
    ) -> None:
        """Prepare; ``start`` comes before everything else.

        Args:
            batcher: The model.
            seat: The stream's place among others.
            look_ahead: How much audio behind a position is heard before it is decided, in samples.
            wishes: What is known of the speakers.
            enrolled: Speech of the first speakers, (num_samples,) float32 each.
            first_sample: Position of the first sample.
            state: Where a predecessor stood; None: start afresh.

        Raises:
            CheckpointError: The predecessor's state is damaged.

        """
        self._batcher = batcher
        self._seat = seat
        self._diarizer = batcher.diarizer
        self._look_ahead = look_ahead
        self._wishes = wishes
        self._enrolled = enrolled
        self._resumed = checkpoint.decode(state, self._diarizer) if state is not None else None
        first = self._resumed.heard_first if self._resumed else 0
        self._silent_until = self._resumed.heard_sample if self._resumed else 0
        """What was heard before this position is being heard again, for no more than its sound."""
        self._clock = HeardClock(first, first_sample)
        self._audio = np.zeros(0, np.float32)
        self._snapshot_from = first_sample
        self._settled_sample = first_sample

    async def start(self) -> None:
        """Learn what is known beforehand.

        Raises:
            InvalidRequestError: Somebody is enrolled with too little speech.
            DeviceError: The model failed.

        """
        if self._resumed is not None:
            self._memory = self._resumed.memory
        else:
            self._memory = await self._batcher.start(self._enrolled)

    @property
    def end_sample(self) -> int:
        """Position after everything taken in."""
        return self._clock.lane_sample

    async def audio(self, first_sample: int, heard: FloatArray) -> list[Event]:
        """Hear the next samples, float32 in [-1, 1).

        Raises:
            InvalidRequestError: They do not follow what came before.
            DeviceError: The model failed for this stream.

        """
        self._check_next("audio", first_sample, len(heard))
        found: list[Event] = []
        step = self._diarizer.step_samples
        while len(heard):
            num_samples = min(len(heard), step - self._clock.heard_sample % step)
            self._hear(heard[:num_samples])
            heard = heard[num_samples:]
            at_step = self._clock.heard_sample % step == 0
            if at_step and self._clock.heard_sample > self._silent_until:
                found.append(await self._advance(self._look_ahead))
                found += self._snapshot()
        return found

    async def gap(self, first_sample: int, num_samples: int) -> list[Event]:
        """Hear of samples that are left out.

        Raises:
            InvalidRequestError: They do not follow what came before.
            DeviceError: The model failed for this stream.

        """
        self._check_next("gap", first_sample, num_samples)
        if self._clock.heard_sample < self._silent_until:
            self._clock.leave_out(num_samples)
            return []
        pauses = self._clock.silence_samples + num_samples >= PAUSE_SAMPLES
        found = await self.flush() if pauses else []
        self._clock.leave_out(num_samples)
        if pauses:
            step = self._diarizer.step_samples
            position = -(-self._clock.heard_sample // step) * step
            self._memory = self._diarizer.paused(self._memory, position)
            self._clock.jump(position)
            self._audio = self._audio[:0]
            found += self._snapshot()
        return found

    async def flush(self) -> list[Event]:
        """Decide everything taken in.

        Raises:
            DeviceError: The model failed for this stream.

        """
        if self._memory.settled_sample >= self._clock.heard_sample:
            return []
        return [await self._advance(0)]

    def _check_next(self, what: str, first_sample: int, num_samples: int) -> None:
        if first_sample != self.end_sample:
            raise InvalidRequestError(
                f"{what}.first_sample is {first_sample}, but {self.end_sample} comes next"
            )
        if first_sample + num_samples > MAX_POSITION:
            raise InvalidRequestError(f"{what} goes beyond position {MAX_POSITION}")

    def _hear(self, heard: FloatArray) -> None:
        self._clock.hear(len(heard))
        self._audio = np.concatenate([self._audio, heard])[-self._diarizer.context_samples :]

    async def _advance(self, look_ahead: int) -> Turns:
        """Make a step with what there is."""
        if self._resumed is not None:
            # What the predecessor decided is not said again, and least of all taken back.
            self._settled_sample = self._clock.start_of(self._memory.settled_sample)
            self._resumed = None
        end = self._clock.heard_sample
        step = Step(self._memory, self._audio, end, look_ahead, self._wishes)
        finding = await self._batcher.advance(step, self._seat)
        self._memory = finding.memory
        return self._turns(finding)

    def _snapshot(self) -> list[Event]:
        """A place to resume from, if the one before asks for audio that is old."""
        if self.end_sample - self._snapshot_from < _CHECKPOINT_SAMPLES:
            return []
        end = self._clock.heard_sample
        first = end - len(self._audio)
        self._snapshot_from = self._clock.start_of(first)
        state = checkpoint.encode(State(first, end, self._memory))
        return [Snapshot(self._snapshot_from, self.end_sample, state)]

    def _turns(self, finding: Finding) -> Turns:
        first_sample = self._settled_sample
        found = [
            Turn(turn.speaker, begin, end, turn.probability)
            for turn in turns_of(finding.activity, finding.edges)
            for begin, end in self._clock.spans(turn.first_sample, turn.end_sample)
        ]
        settled = self._memory.settled_sample
        self._settled_sample = self._clock.start_of(settled)
        self._clock.forget(min(settled, self._clock.heard_sample - len(self._audio)))
        return Turns(tuple(found), first_sample, self.end_sample, self._settled_sample)
