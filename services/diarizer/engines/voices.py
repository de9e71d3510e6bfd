"""Which of the people heard before is it? Voices that are learnt while they speak.

Source: Coria et al., "Overlap-aware low-latency online speaker diarization based on end-to-end
local segmentation", 2021: people told apart inside a window are matched with those known, and
whoever is like nobody is somebody new. Here several of them may be one, if they never speak at
once, and besides the sound of a voice it counts whom the window's past was ascribed to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.common.audio import FloatArray


@dataclass(frozen=True, slots=True)
class Voice:
    """What is known of a voice."""

    total: FloatArray
    """(size,) Sum of embeddings of unit length, each times the seconds of speech it stands for."""
    seconds: float
    """Negative: it turned out to be another voice."""

    @property
    def is_gone(self) -> bool:
        """Whether it turned out to be another voice."""
        return self.seconds < 0

    def with_more(self, embedding: FloatArray, seconds: float) -> "Voice":
        """The same, having heard more of it."""
        return Voice(self.total + embedding * np.float32(seconds), self.seconds + seconds)

    def with_more_of(self, other: "Voice") -> "Voice":
        """The same, the other one being the same."""
        return Voice(self.total + other.total, self.seconds + other.seconds)


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
    joined: float = 0.7
    """Likeness of two known voices from which they are one."""


def identify(
    people: Sequence[Somebody], voices: Sequence[Voice], rules: Rules, *, room: int, missed: bool
) -> list[int | None]:
    """Whose voices people have: no two who speak at once have the same.

    The likest are matched first, so that whoever was heard well decides for who was not.

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
    known = len(voices)
    # A column for each voice, then one for each person who might be new.
    likeness = np.full((len(people), known + len(people)), -np.inf)
    for row, person in enumerate(people):
        if voices:
            sounds = [unit(voice.total) for voice in voices]
            likeness[row, :known] = rules.past * person.past + _likeness(person, sounds)
            likeness[row, :known][[voice.is_gone for voice in voices]] = -np.inf
        if room and (person.seconds >= rules.new_s or not (voices or row)):
            likeness[row, known + row] = rules.same_missed if missed else rules.same
    found: list[int | None] = [None] * len(people)
    while np.isfinite(likeness).any():
        row, column = divmod(int(likeness.argmax()), likeness.shape[1])
        found[row] = column
        others = [other for other, voice in enumerate(found) if voice is None]
        if column == known + row:
            room -= 1
            sound = people[row].embedding
            for other in others:
                [alike] = (0.0,) if sound is None else _likeness(people[other], [sound])
                likeness[other, column] = alike
                if not room:
                    likeness[other, known + other] = -np.inf
        for other in others:
            if not people[row].apart[other]:
                likeness[other, column] = -np.inf
        likeness[row] = -np.inf
    return _numbered(found, known)


def joined(voices: Sequence[Voice], rules: Rules, *, least: int) -> list[int]:
    """Which known voices turn out to be one: a little speech may have sounded like somebody new.

    Args:
        voices: Known ones.
        rules: What decides.
        least: So many are not joined: there must be as many.

    Returns:
        For each voice itself, or the older one that it is.

    """
    whose = list(range(len(voices)))
    if not voices:
        return whose
    sounds = np.stack([unit(voice.total) for voice in voices])
    likeness = np.tril(sounds @ sounds.T, k=-1)
    present = sum(not voice.is_gone for voice in voices)
    while present > least and likeness.max() >= rules.joined:
        younger, older = divmod(int(likeness.argmax()), len(voices))
        whose[younger] = older
        likeness[younger, :] = likeness[:, younger] = 0
        present -= 1
    for younger, older in enumerate(whose):
        whose[younger] = whose[older]
    return whose


def unit(vector: FloatArray) -> FloatArray:
    """The vector, with length one."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(max(length, 1e-9))


def _likeness(person: Somebody, sounds: Sequence[FloatArray]) -> FloatArray:
    """(sounds,) how much somebody is like them."""
    if person.embedding is None:
        return np.zeros(len(sounds), np.float32)
    return np.stack(sounds) @ person.embedding


def _numbered(found: Sequence[int | None], known: int) -> list[int | None]:
    """The same, new voices being numbered in order."""
    new = dict.fromkeys(voice for voice in found if voice is not None and voice >= known)
    number = {voice: known + place for place, voice in enumerate(new)}
    return [voice if voice is None else number.get(voice, voice) for voice in found]
