"""What the service asks of an engine."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.translator.languages import Language


@dataclass(frozen=True, slots=True)
class Pair:
    """From which language into which."""

    source: Language
    target: Language

    def __str__(self) -> str:
        return f"{self.source.tag}>{self.target.tag}"


@dataclass(frozen=True, slots=True)
class Job:
    """A text to translate: a sentence, or as much of it as was said."""

    pair: Pair
    text: str
    prefix: str = ""
    """How the translation has to begin, for engines that can be told."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a piece of a translation comes from, as attention has it."""

    end: int
    """Where the piece ends in the translation, in characters."""
    source: int
    """Where the source is that it comes from, in characters."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What an engine makes of a text."""

    text: str
    looks: tuple[Look, ...] = ()
    """In order; empty: the engine does not tell."""


class Translator(Protocol):
    """Translates texts of many streams at a time.

    It keeps nothing between two calls, which may be made from any number of threads at once.
    """

    name: str
    """Names the checkpoints of its streams."""
    forces_prefix: bool
    """Whether a translation begins with the job's prefix."""
    example: Pair
    """One that it can translate."""

    def check(self, pair: Pair) -> None:
        """See whether it can translate so.

        Raises:
            InvalidRequestError: It cannot; the message lists what it can.

        """
        ...

    def bucket(self, job: Job) -> Hashable:
        """Jobs of equal buckets may share a call."""
        ...

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """Translate each text; none changes what comes out for another.

        Raises:
            DeviceError: The model failed, for at least one of them.

        """
        ...
