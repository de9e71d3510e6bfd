"""A sentence while it is said: which of its translation is certain, and which words that covers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.common.words import Word
from services.translator.policies.policy import Hypothesis, Policy
from services.translator.policies.units import common, continuation


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that will not change, and the words that it translates."""

    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """The words of a sentence and what was said of its translation."""

    words: tuple[Word, ...] = ()
    num_covered: int = 0
    """Of the words, those that pieces have covered."""
    units: tuple[str, ...] = ()
    """Of the translation, those that are certain."""
    hypotheses: tuple[Hypothesis, ...] = ()
    """Those that the policy may ask for, the newest last."""

    @property
    def prefix(self) -> str:
        """How a translation has to begin."""
        return "".join(self.units).strip()

    def hear(self, found: Hypothesis, policy: Policy) -> tuple["Draft", Piece | None]:
        """Take in a translation of all the words; what is certain now."""
        hypotheses = (*self.hypotheses, found)
        new = _kept(hypotheses, policy.keeps)
        certain = policy.certain(hypotheses)
        begin = self._behind(found.units[:certain])
        covered = self._covered_by(found, certain)
        if begin >= certain or covered <= self.num_covered:
            return replace(self, hypotheses=new), None
        said = found.units[begin:certain]
        piece = Piece("".join(said), self.words[self.num_covered : covered])
        return Draft(self.words, covered, (*self.units, *said), new), piece

    def end(self, units: Sequence[str]) -> Piece:
        """What a translation of the whole sentence adds."""
        rest = units[self._behind(units) :]
        return Piece("".join(rest), self.words[self.num_covered :])

    def continued(self, units: Sequence[str]) -> tuple[str, ...]:
        """A translation as far as it does not contradict what is certain; else nothing new."""
        return tuple(units) if tuple(units[: len(self.units)]) == self.units else self.units

    def _behind(self, units: Sequence[str]) -> int:
        if common(self.units, units) == len(self.units):
            return len(self.units)
        return continuation(self.units, units)

    def _covered_by(self, found: Hypothesis, certain: int) -> int:
        """How many words the certain units translate: at least one more than before.

        The last one waits for the end of the sentence.
        """
        if not certain:
            return 0
        if found.sources:
            reached = max(found.sources[:certain]) + 1
        else:
            reached = found.num_words * certain // len(found.units)
        return min(max(reached, self.num_covered + 1), found.num_words - 1)


def _kept(hypotheses: tuple[Hypothesis, ...], keeps: int) -> tuple[Hypothesis, ...]:
    """Those of the last words, and the newest before them."""
    reached = hypotheses[-1].num_words - keeps + 1
    recent = [one for one in hypotheses if one.num_words > reached]
    older = [one for one in hypotheses if one.num_words <= reached]
    return (*older[-1:], *recent)
