"""Everything a successor needs, as bytes. Any change to it is another ``VERSION``."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.common.sealed import position_of, seal, text_of, unseal
from services.common.words import Word
from services.translator.draft import Draft
from services.translator.policies.policy import Hypothesis

VERSION = 2


@dataclass(frozen=True, slots=True)
class State:
    """A stream between two messages."""

    draft: Draft
    end_sample: int
    """Position after the last word that was committed to it."""


def format_of(name: str) -> str:
    """The name of this layout for an engine, such as ``firefox-en-pt/1``."""
    return f"{name}/{VERSION}"


def encode(state: State) -> bytes:
    """The state of a stream."""
    draft = state.draft
    return seal(
        {
            "end": state.end_sample,
            "words": [[word.text, word.first_sample, word.end_sample] for word in draft.words],
            "covered": draft.num_covered,
            "units": draft.units,
            "hypotheses": [[one.num_words, one.units, one.sources] for one in draft.hypotheses],
        }
    )


def decode(data: bytes) -> State:
    """What ``encode`` was given.

    Raises:
        CheckpointError: These are not the bytes that ``encode`` made.

    """
    return unseal(data, _state)


def _state(fields: Any) -> State:
    draft = Draft(
        tuple(_word(*word) for word in fields["words"]),
        int(fields["covered"]),
        tuple(map(text_of, fields["units"])),
        tuple(_hypothesis(*one) for one in fields["hypotheses"]),
    )
    end = position_of(fields["end"])
    ends = [word.end_sample for word in draft.words]
    if not all(one < other for one, other in pairwise(ends)) or max(ends, default=0) > end:
        raise ValueError("its words are out of order")
    # The last word of a sentence is not covered before the sentence ends.
    if not 0 <= draft.num_covered < max(1, len(draft.words)):
        raise ValueError("it covers words that it does not hold")
    if not all(1 <= one.num_words <= len(draft.words) for one in draft.hypotheses):
        raise ValueError("it knows of words that it does not hold")
    return State(draft, end)


def _word(text: Any, first_sample: Any, end_sample: Any) -> Word:
    word = Word(text_of(text), position_of(first_sample), position_of(end_sample))
    if not (word.text and word.first_sample <= word.end_sample):
        raise ValueError("a word has no text or no place")
    return word


def _hypothesis(num_words: Any, units: Any, sources: Any) -> Hypothesis:
    found = Hypothesis(int(num_words), tuple(map(text_of, units)), tuple(map(int, sources)))
    if found.sources and len(found.sources) != len(found.units):
        raise ValueError("its sources are not those of its units")
    return found
