"""Which decodings not to believe. A guard never loses audio: its window is decoded again otherwise.

The thresholds on silence and on compression are those of openai/whisper's ``transcribe.py``.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import takewhile

from services.asr.policies.normal_form import normal_form
from services.asr.recognizer import Hypothesis
from services.common.timeline import samples, seconds
from services.common.words import Word

_NO_SPEECH_PROBABILITY = 0.6
_AVG_LOG_PROBABILITY = -1.0
_COMPRESSION_RATIO = 2.4
_WORDS_PER_S = 8.0
"""The fastest speakers reach six."""
_LONGEST_CYCLE = 8
_SAID_TWICE = 6
"""Words in a row that nobody says twice within a window, or hardly anybody."""
_BORDER_SAMPLES = samples(0.08)
"""No word is that short: what attention squeezes into the last four frames was not heard. Source:
the border of Simul-Whisper for audio that has ended."""
_ECHO_TOKENS = 6
"""People begin as they did a moment ago, too, but seldom with so many tokens."""
_MIN_LOOP_WORDS = 8
_MIN_REPEATS = 3


class Verdict(StrEnum):
    """What is wrong with a hypothesis."""

    SOUND = "sound"
    NO_SPEECH = "no_speech"
    """It has no word, or the model doubts that anybody speaks and is unsure of its words."""
    REPETITION = "repetition"
    """It ends in a loop, or in what it has said before, or says the same again and again."""
    RATE = "rate"
    """More words than can be said in the time."""
    ECHO = "echo"
    """It begins with a part of its prompt, which was said before its window."""
    EARLY = "early"
    """It ends in a pause, and speech goes on behind it."""


def heard_words(hypothesis: Hypothesis, end_sample: int) -> Hypothesis:
    """The hypothesis without what it says after the audio has ended."""
    border = end_sample - _BORDER_SAMPLES
    before = takewhile(lambda word: word.first_sample < border, hypothesis.words)
    return replace(hypothesis, words=tuple(before))


def judge(hypothesis: Hypothesis, num_samples: int, prompt: Sequence[int] = ()) -> Verdict:
    """Judge a hypothesis over so many samples of audio, decoded with a prompt."""
    if not hypothesis.words:
        return Verdict.SOUND
    if not any(char.isalnum() for word in hypothesis.words for char in word.text):
        # Silence is at times heard as a row of full stops, and the model is sure of each.
        return Verdict.NO_SPEECH
    if (
        hypothesis.no_speech_probability > _NO_SPEECH_PROBABILITY
        and hypothesis.avg_log_probability < _AVG_LOG_PROBABILITY
    ):
        return Verdict.NO_SPEECH
    if (
        loop_start(hypothesis.words) is not None
        or _ends_as_before(hypothesis.words)
        or _compression(hypothesis.words) > _COMPRESSION_RATIO
    ):
        return Verdict.REPETITION
    if len(hypothesis.words) > 3 + _WORDS_PER_S * seconds(num_samples):
        return Verdict.RATE
    if _echoes(prompt, hypothesis.words):
        return Verdict.ECHO
    return Verdict.SOUND


def _ends_as_before(words: Sequence[Word]) -> bool:
    keys = [normal_form(word.text) for word in words]
    return _holds(keys[:-_SAID_TWICE], keys[-_SAID_TWICE:])


def _compression(words: Sequence[Word]) -> float:
    text = "".join(word.text for word in words).encode()
    return len(text) / len(zlib.compress(text))


def _echoes(prompt: Sequence[int], words: Sequence[Word]) -> bool:
    said = [token for word in words[:_ECHO_TOKENS] for token in word.token_ids][:_ECHO_TOKENS]
    return len(said) == _ECHO_TOKENS and _holds(prompt, said)


def _holds(said: Sequence[str] | Sequence[int], run: Sequence[str] | Sequence[int]) -> bool:
    """Whether a run stands somewhere in what was said."""
    starts = range(len(said) - len(run) + 1)
    return any(list(said[start : start + len(run)]) == run for start in starts)


def loop_start(words: Sequence[Word]) -> int | None:
    """Index after the first round of a loop that the words end in, or None.

    A loop is a cycle of 1 to 8 words that fills the end at least three times, and at least eight
    words of it.
    """
    found = _loop(_spellings(words))
    if found is None:
        return None
    cycle, length = found
    return len(words) - length + cycle


def without_loops(words: Sequence[Word]) -> tuple[Word, ...]:
    """The words with one round of each loop, wherever it is: loops are not always regular."""
    spellings = _spellings(words)
    for end in range(len(words) + 1):
        if (found := _loop(spellings[:end])) is not None:
            cycle, length = found
            behind = end
            while behind < len(words) and spellings[behind] == spellings[behind - cycle]:
                behind += 1
            return without_loops([*words[: end - length + cycle], *words[behind:]])
    return tuple(words)


def _spellings(words: Sequence[Word]) -> list[str]:
    return [word.text.strip().casefold() for word in words]


def _loop(spellings: Sequence[str]) -> tuple[int, int] | None:
    """The words in a round of the loop that these end in, and in all its rounds."""
    for cycle in range(1, _LONGEST_CYCLE + 1):
        length = cycle
        while length < len(spellings) and spellings[-1 - length] == spellings[-1 - length + cycle]:
            length += 1
        if length >= max(_MIN_LOOP_WORDS, _MIN_REPEATS * cycle):
            return cycle, length
    return None
