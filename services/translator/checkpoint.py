"""Everything a successor needs, as bytes: JSON. Any change to it is another ``VERSION``."""

import json
from dataclasses import dataclass
from typing import Any

from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION
from services.common.words import Word
from services.translator.draft import Draft
from services.translator.policies.policy import Hypothesis

VERSION = 1


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
    return json.dumps(
        {
            "end": state.end_sample,
            "words": [[word.text, word.first_sample, word.end_sample] for word in draft.words],
            "covered": draft.num_covered,
            "units": draft.units,
            "hypotheses": [[one.num_words, one.units, one.sources] for one in draft.hypotheses],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def decode(data: bytes) -> State:
    """What ``encode`` was given.

    Raises:
        CheckpointError: These are not the bytes that ``encode`` made.

    """
    try:
        return _state(json.loads(data))
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from error


def _state(read: Any) -> State:
    draft = Draft(
        tuple(Word(str(text), int(first), int(end)) for text, first, end in read["words"]),
        int(read["covered"]),
        tuple(map(str, read["units"])),
        tuple(
            Hypothesis(int(count), tuple(map(str, units)), tuple(map(int, sources)))
            for count, units, sources in read["hypotheses"]
        ),
    )
    ends = [word.end_sample for word in draft.words]
    end = int(read["end"])
    if not (sorted(ends) == ends and 0 <= max(ends, default=0) <= end <= MAX_POSITION):
        raise ValueError("its words are out of order")
    counts = [draft.num_covered, *(one.num_words for one in draft.hypotheses)]
    if not all(0 <= count <= len(draft.words) for count in counts):
        raise ValueError("it knows of words that it does not hold")
    if any(one.sources and len(one.sources) != len(one.units) for one in draft.hypotheses):
        raise ValueError("its sources are not those of its units")
    return State(draft, end)
