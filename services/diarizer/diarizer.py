"""What the service asks of an engine.

Positions here are on the clock of what was *heard*: samples that were left out are not counted.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is known of the speakers beforehand."""

    max_speakers: int
    """Most speakers there can be."""
    num_speakers: int = 0
    """How many there are; 0: unknown."""


class Memory(Protocol):
    """What an engine remembers of a stream. It never changes; a step gives another one."""

    @property
    def settled_sample(self) -> int:
        """Position before which speakers are decided for good."""
        ...

    def dump(self) -> bytes:
        """Everything that audio does not tell again."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """New audio of one stream, and what came before it."""

    memory: Memory
    audio: FloatArray
    """(num_samples,) float32 in [-1, 1), the newest last: ``context_samples``, or what was heard
    since the stream began or paused."""
    end_sample: int
    """Position after ``audio``."""
    look_ahead: int
    """How much audio behind a position is heard before it is decided, in samples."""
    wishes: Wishes

    @property
    def first_sample(self) -> int:
        """Position of the first sample of ``audio``."""
        return self.end_sample - len(self.audio)


@dataclass(frozen=True, slots=True)
class Finding:
    """Who speaks, from where the memory before was settled to the end of the audio."""

    memory: Memory
    activity: FloatArray
    """(num_frames, num_speakers) float32, probability that a speaker speaks; speakers are numbered
    from 0 in order of appearance."""
    edges: NDArray[np.int64]
    """(num_frames + 1,) Where frames begin, and where the last one ends."""


class Diarizer(Protocol):
    """Tells the voices of many streams apart, a step of each at a time.

    It keeps nothing between two calls. Steps may be made from any number of threads at once.
    """

    name: str
    """Names the checkpoints of its streams, and changes with the weights."""
    step_samples: int
    """New audio in a step, unless all there is is to be decided."""
    context_samples: int
    """Audio that a step looks at, at most: two steps more than what it decides about."""

    def start(self, enrolled: Sequence[FloatArray]) -> Memory:
        """What is remembered of a stream that has heard nothing.

        Args:
            enrolled: Speech of people who will be the first speakers, (num_samples,) float32 each.

        Raises:
            InvalidRequestError: One of them holds too little speech.
            DeviceError: The model failed.

        """
        ...

    def paused(self, memory: Memory, at_sample: int) -> Memory:
        """What is remembered behind a pause: voices, and nothing of what was heard last.

        Args:
            memory: Before it; everything heard is decided.
            at_sample: Where hearing goes on, at a multiple of ``step_samples``.

        """
        ...

    def load(self, data: bytes) -> Memory:
        """What ``Memory.dump`` wrote.

        Raises:
            CheckpointError: These are not such bytes.

        """
        ...

    def bucket(self, step: Step) -> Hashable:
        """Steps of equal buckets may share a call."""
        ...

    def advance(self, steps: Sequence[Step]) -> list[Finding]:
        """Make a step of each stream; none changes what comes out for another.

        Raises:
            DeviceError: The model failed, for at least one of them.

        """
        ...
