"""Which of the people heard before is it? Voices that are learnt while they speak.

Source: Coria et al., "Overlap-aware low-latency online speaker diarization based on end-to-end
local segmentation", 2021: people told apart inside a window are matched one to one with those
known, and whoever is like nobody is somebody new. Besides the sound of a voice it counts here whom
the window's past was ascribed to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from services.common.audio import FloatArray

_IMPOSSIBLE = -1e3


@dataclass(frozen=True, slots=True)
class Voice:
    """What is known of a voice."""

    total: FloatArray
    """(size,) Sum of embeddings of unit length, each times the seconds of speech it stands for."""
    seconds: float

    def with_more(self, embedding: FloatArray, seconds: float) -> "Voice":
        """The same, having heard more of it."""
        return Voice(self.total + embedding * np.float32(seconds), self.seconds + seconds)


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person told apart inside a window."""

    embedding: FloatArray | None
    """(size,) Of unit length; None: never heard alone."""
    seconds: float
    """Of speech that the embedding is made of."""
    past: FloatArray
    """(num_voices,) Share of the person's decided speech that was ascribed to each voice."""
    apart: tuple[bool, ...]
    """For each person of the window, whether they never speak while this one does."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When somebody is who."""

    same: float = 0.4
    """Likeness, as the cosine of embeddings, below which somebody is somebody new."""
    same_missed: float = 0.5
    """The same while fewer voices are known than there are speakers."""
    past: float = 0.2
    """Likeness that the past is worth, if all of it was one voice's."""
    new_s: float = 1.2
    """Speech alone that it takes to be somebody new, in seconds."""


def identify(
    people: Sequence[Somebody], voices: Sequence[Voice], rules: Rules, *, room: int, missed: bool
) -> list[int | None]:
    """Whose voices people have: no two who speak at once have the same.

    Args:
        people: Of one window.
        voices: Known ones.
        rules: What decides.
        room: How many more there can be.
        missed: Whether there must be more than are known.

    Returns:
        For each person the index of a voice, those from ``len(voices)`` on being new ones in the
        order of ``people``; None: nobody in particular.

    """
    if not people:
        return []
    same = rules.same_missed if missed else rules.same
    likeness = np.full((len(people), len(voices) + len(people)), _IMPOSSIBLE)
    for row, person in enumerate(people):
        if voices:
            likeness[row, : len(voices)] = rules.past * person.past + _likeness(person, voices)
        if room and (person.seconds >= rules.new_s or not voices):
            likeness[row, len(voices) + row] = same
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    found: list[int | None] = [None] * len(people)
    for row, column in zip(rows, columns, strict=True):
        if column < len(voices) and likeness[row, column] > _IMPOSSIBLE / 2:
            found[row] = int(column)
    num_new = 0
    for row, column in zip(rows, columns, strict=True):
        if found[row] is not None:
            continue
        found[row] = _shared(row, people, found, likeness[row, : len(voices)], same)
        wanted = likeness[row, column] > _IMPOSSIBLE / 2
        if found[row] is None and wanted and num_new < room:
            found[row] = len(voices) + num_new
            num_new += 1
    return found


def _shared(
    row: int,
    people: Sequence[Somebody],
    found: Sequence[int | None],
    likeness: NDArray[np.float64],
    same: float,
) -> int | None:
    """The voice of somebody who was told apart into two people, who never speak at once."""
    if not len(likeness) or likeness.max() < same:
        return None
    voice = int(likeness.argmax())
    holders = [other for other, whose in enumerate(found) if whose == voice]
    return voice if all(people[row].apart[other] for other in holders) else None


def unit(vector: FloatArray) -> FloatArray:
    """The vector, with length one."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(max(length, 1e-9))


def _likeness(person: Somebody, voices: Sequence[Voice]) -> FloatArray:
    if person.embedding is None:
        return np.zeros(len(voices), np.float32)
    return np.stack([unit(voice.total) for voice in voices]) @ person.embedding
