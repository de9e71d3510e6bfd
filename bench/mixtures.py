"""Conversations made of what single people read, so that who speaks when is known exactly.

Speech is where a clean recording is louder than its own background, so truth does not depend on a
model. Levels, pauses and overlaps are drawn by chance from a seed.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.corpus import Recording, TimedWord
from services.common.audio import FloatArray, pcm_to_float
from services.common.timeline import samples, seconds

_FRAME = samples(0.02)
_LOUD = 0.9
"""Share of frames that are less loud than speech at its loudest."""
_SPEECH_DB = -32.0
"""Speech is no quieter than this, compared with the same recording at its loudest."""
_BREATH_S = 0.3
"""A shorter silence belongs to the speech around it."""
_SHORTEST_S = 0.2
_NOISE = 10 ** (-62 / 20)
"""Root mean square of the noise behind everything."""
_TURN_S = (1.0, 12.0)
"""How long a turn is, at least and at most: a longer recording is cut at a silence."""
_PAUSE_S = (0.1, 0.9)
"""How long nobody speaks between two turns, at least and at most."""


@dataclass(frozen=True, slots=True)
class SpokenBy:
    """A stretch in which somebody speaks, in seconds."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class SaidWord:
    """A word, when it is said, in seconds, and by whom."""

    text: str
    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """What people say, and who of them when."""

    id: str
    audio: FloatArray
    turns: tuple[SpokenBy, ...]
    words: tuple[SaidWord, ...] = ()
    """In order of their start; empty: nobody knows them."""

    @property
    def speakers(self) -> int:
        """How many people speak."""
        return len({turn.speaker for turn in self.turns})


@dataclass(frozen=True, slots=True)
class _Turn:
    """A piece of a recording, and where in it somebody speaks, in samples."""

    audio: FloatArray
    speech: tuple[tuple[int, int], ...]
    words: tuple[TimedWord, ...]
    """From the piece's start."""


def conversation(
    recordings: Sequence[Recording],
    *,
    seed: int,
    speakers: int,
    overlap: float,
    length_s: float,
    longest_pause_s: float = _PAUSE_S[1],
) -> Conversation:
    """Let some people talk.

    Args:
        recordings: Of more people than are to talk, each with ``speaker``.
        seed: Decides everything.
        speakers: How many people talk; all of them do before any of them does for long.
        overlap: Share of the time in which two talk at once, roughly.
        length_s: How long they talk.
        longest_pause_s: How long nobody speaks between two turns, at most.

    """
    chance = random.Random(seed)
    said = _said(recordings)
    people = chance.sample(sorted(said), speakers)
    gains = {person: 10 ** (chance.uniform(-4, 4) / 20) for person in people}
    mixed = np.zeros(samples(length_s), np.float32)
    turns: list[SpokenBy] = []
    words: list[SaidWord] = []
    at, last, both, silent = samples(0.5), "", 0, set(people)
    while at < len(mixed) - samples(1):
        person = chance.choice([one for one in sorted(silent or people) if one != last])
        silent.discard(person)
        turn = chance.choice(said[person])
        num = len(turn.audio)
        # Whether the next one starts before the last one has ended.
        begin = at + samples(chance.uniform(_PAUSE_S[0], longest_pause_s))
        if turns and both < overlap * at:
            begin = max(0, at - samples(chance.uniform(0.3, 1.5)))
            both += at - begin
        if begin >= len(mixed):
            break
        end = min(begin + num, len(mixed))
        mixed[begin:end] += turn.audio[: end - begin] * np.float32(gains[person])
        turns += [
            SpokenBy(seconds(begin + first), seconds(min(begin + past, end)), person)
            for first, past in turn.speech
            if begin + first < end
        ]
        later = [word.later(seconds(begin)) for word in turn.words]
        words += [
            SaidWord(word.text, word.start_s, word.end_s, person)
            for word in later
            if word.end_s <= seconds(end)
        ]
        at, last = max(at, end), person
    noise = np.random.default_rng(seed).normal(0, _NOISE, len(mixed)).astype(np.float32)
    name = f"{speakers} people, {overlap:.0%} overlap, seed {seed}"
    return Conversation(
        name,
        np.clip(mixed + noise, -1, 1),
        tuple(sorted(turns, key=_start)),
        tuple(sorted(words, key=_start)),
    )


def _start(said: SpokenBy | SaidWord) -> float:
    return said.start_s


def _said(recordings: Sequence[Recording]) -> Mapping[str, list[_Turn]]:
    """What each person says, in turns."""
    said: dict[str, list[_Turn]] = defaultdict(list)
    for recording in recordings:
        audio = pcm_to_float(recording.clip().pcm)
        stretches = speech(audio)
        spoken = _spoken_in(stretches, recording.words)
        first = 0
        while first < len(stretches):
            begin = stretches[first][0]
            fitting = [
                index
                for index in range(first, len(stretches))
                if stretches[index][1] - begin <= samples(_TURN_S[1])
            ]
            last = fitting[-1] if fitting else first
            end = stretches[last][1]
            if end - begin >= samples(_TURN_S[0]):
                inside = tuple((a - begin, b - begin) for a, b in stretches[first : last + 1])
                words = tuple(
                    word.later(-seconds(begin)) for own in spoken[first : last + 1] for word in own
                )
                said[recording.speaker].append(_Turn(audio[begin:end], inside, words))
            first = last + 1
    return said


def _spoken_in(
    stretches: Sequence[tuple[int, int]], words: Sequence[TimedWord]
) -> list[list[TimedWord]]:
    """The words of each stretch of speech; what of a word lies in a silence is cut off.

    Aligned words take the silence before them along, so a word is in the stretch that it shares
    most with.
    """
    found: list[list[TimedWord]] = [[] for _ in stretches]
    edges = [(seconds(begin), seconds(end)) for begin, end in stretches]
    for word in words:
        common = [min(word.end_s, end) - max(word.start_s, begin) for begin, end in edges]
        most = max(common, default=0.0)
        if most > 0:
            index = common.index(most)
            begin, end = edges[index]
            inside = TimedWord(word.text, max(word.start_s, begin), min(word.end_s, end))
            found[index].append(inside)
    return found


def speech(audio: FloatArray) -> list[tuple[int, int]]:
    """Where somebody speaks in a clean recording, in samples."""
    whole = audio[: len(audio) // _FRAME * _FRAME].reshape(-1, _FRAME)
    level = 10 * np.log10(np.square(whole).mean(axis=1) + 1e-12)
    loud = level > np.quantile(level, _LOUD) + _SPEECH_DB
    found: list[tuple[int, int]] = []
    for frame in np.flatnonzero(loud):
        begin = int(frame) * _FRAME
        if found and begin - found[-1][1] < samples(_BREATH_S):
            found[-1] = found[-1][0], begin + _FRAME
        else:
            found.append((begin, begin + _FRAME))
    return [(begin, end) for begin, end in found if end - begin >= samples(_SHORTEST_S)]
