"""What a stream learns: the domain's form of what ``TranscribeResponse`` carries."""

from dataclasses import dataclass
from typing import TypeAlias

from services.asr.checkpoint import State
from services.asr.guards import Verdict
from services.asr.recognizer import Hypothesis
from services.common.words import Word


@dataclass(frozen=True, slots=True)
class Committed:
    """Words that will not change. ``state`` resumes after them."""

    words: tuple[Word, ...]
    hypothesis: Hypothesis
    temperature: float
    state: State


@dataclass(frozen=True, slots=True)
class Tail:
    """Words that may still change, decoded from the audio through a position."""

    words: tuple[Word, ...]
    through_sample: int


@dataclass(frozen=True, slots=True)
class LanguageKnown:
    """The language that the stream keeps to from now on."""

    language_code: str
    probability: float


@dataclass(frozen=True, slots=True)
class Moved:
    """The window moved on without a word. ``state`` resumes there."""

    state: State


@dataclass(frozen=True, slots=True)
class Flushed:
    """Everything before a flush is committed."""

    flush_id: int


@dataclass(frozen=True, slots=True)
class GuardFired:
    """A decoding that was not believed."""

    verdict: Verdict


Event: TypeAlias = Committed | Tail | LanguageKnown | Moved | Flushed | GuardFired
