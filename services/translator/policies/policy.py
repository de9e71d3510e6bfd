"""What a policy is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A translation of an unfinished sentence."""

    num_words: int
    """Of how many of its words."""
    units: tuple[str, ...]
    sources: tuple[int, ...] = ()
    """For each unit the word of the source that it comes from, counted from 0; empty: unknown."""


class Policy(Protocol):
    """Says how much of a translation will stay as the sentence goes on."""

    @property
    def keeps(self) -> int:
        """For so many words of the source hypotheses are asked for again; 0: for none at all."""
        ...

    def certain(self, hypotheses: Sequence[Hypothesis]) -> int:
        """How many units of the newest hypothesis are certain, of one at least, oldest first."""
        ...
