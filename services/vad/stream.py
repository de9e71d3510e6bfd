"""One stream: audio, gaps and flushes in, events out. It waits only for the model."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.audio import FloatArray
from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.wire import MAX_POSITION
from services.vad import checkpoint
from services.vad.batcher import Batcher
from services.vad.detector import fresh_memory
from services.vad.endpointer import Endpointer, Endpointing, Event, Heard
from services.vad.framing import Framer, Piece, Windows


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a successor needs to go on from a position."""

    through_sample: int
    state: bytes


class Stream:
    """Follows one lane. What it finds does not depend on how the audio was cut.

    Windows lie on a grid that starts at the first sample and that nothing moves: a flush classifies
    the window that is not yet complete with zeros at its end, then forgets that it did.
    """

    def __init__(
        self, batcher: Batcher, settings: Endpointing, first_sample: int, state: bytes | None
    ) -> None:
        """Start at a sample, afresh or where a predecessor stood.

        Raises:
            InvalidRequestError: The first sample is not where the predecessor stood.
            CheckpointError: The predecessor's state is damaged.

        """
        self._batcher = batcher
        self._memory = fresh_memory(batcher.detector)
        self._endpointer = Endpointer.starting_at(first_sample, settings)
        if state is not None:
            endpointer_state, self._memory = checkpoint.decode(state, len(self._memory))
            if endpointer_state.through_sample != first_sample:
                raise InvalidRequestError(
                    f"open.first_sample is {first_sample}, but the checkpoint goes on from"
                    f" {endpointer_state.through_sample}"
                )
            self._endpointer = Endpointer(settings, endpointer_state)
        self._framer = Framer(first_sample)
        self._snapshot_sample = first_sample
        self._last_heard = self._endpointer.heard

    @property
    def end_sample(self) -> int:
        """Position after everything taken in."""
        return self._framer.end_sample

    def news(self) -> Heard | None:
        """How far the audio has been heard, unless that has been said before."""
        heard = self._endpointer.heard
        if heard == self._last_heard:
            return None
        self._last_heard = heard
        return heard

    async def audio(self, first_sample: int, samples: FloatArray) -> list[Event]:
        """Hear the next samples, float32 in [-1, 1).

        Raises:
            InvalidRequestError: They do not follow what came before.
            DeviceError: The model failed for this stream.

        """
        self._check_next("audio", first_sample, len(samples))
        return await self._hear(self._framer.take(samples))

    async def gap(self, first_sample: int, num_samples: int) -> list[Event]:
        """Hear of samples that are left out.

        Raises:
            InvalidRequestError: They do not follow what came before.
            DeviceError: The model failed for this stream.

        """
        self._check_next("gap", first_sample, num_samples)
        return await self._hear(self._framer.skip(num_samples))

    async def flush(self) -> list[Event]:
        """Decide everything taken in.

        Raises:
            DeviceError: The model failed for this stream.

        """
        return self._endpointer.flush(self.end_sample, await self._partial_probability())

    async def finish(self) -> list[Event]:
        """Decide everything taken in, which is all there is.

        Raises:
            DeviceError: The model failed for this stream.

        """
        return self._endpointer.finish(self.end_sample, await self._partial_probability())

    def snapshot(self) -> Snapshot | None:
        """A place to resume from, if a second of audio has been heard since the one before."""
        state = self._endpointer.state
        if state.through_sample - self._snapshot_sample < SAMPLE_RATE_HZ:
            return None
        self._snapshot_sample = state.through_sample
        return Snapshot(state.through_sample, checkpoint.encode(state, self._memory))

    def _check_next(self, what: str, first_sample: int, num_samples: int) -> None:
        if first_sample != self.end_sample:
            raise InvalidRequestError(
                f"{what}.first_sample is {first_sample}, but {self.end_sample} comes next"
            )
        if first_sample + num_samples > MAX_POSITION:
            raise InvalidRequestError(f"{what} goes beyond position {MAX_POSITION}")

    async def _hear(self, pieces: Sequence[Piece]) -> list[Event]:
        events: list[Event] = []
        for piece in pieces:
            if isinstance(piece, Windows):
                probabilities, self._memory = await self._batcher.classify(
                    piece.samples, self._memory
                )
                for probability in probabilities:
                    events += self._endpointer.push(probability)
            else:
                self._memory = fresh_memory(self._batcher.detector)
                events += self._endpointer.skip(piece.num_windows)
        return events

    async def _partial_probability(self) -> float | None:
        """Of the window that is not complete; ``None``: there is none."""
        if not self._framer.partial_samples:
            return None
        window = self._framer.partial
        if window is None:
            return 0.0
        [probability], _ = await self._batcher.classify(window[None], self._memory)
        return probability
