"""LocalAgreement: what hypotheses of a growing sentence have in common is certain.

Source: Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial
Hypothesis Selection", 2020; the agreement is over words of the source, not over updates, so it does
not matter how many words come at once. What is held back: Arivazhagan et al., "Re-translation
versus Streaming for Simultaneous Translation", 2020.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.translator.policies.policy import Hypothesis
from services.translator.policies.units import common


@dataclass(frozen=True, slots=True)
class LocalAgreement:
    """A unit is certain once the hypotheses of so many words have shared it."""

    keeps: int = 6
    """Words of the source that hypotheses have to agree over, the newest included."""
    held_back: int = 2
    """Units at the end of a hypothesis that are not certain in any case."""

    def certain(self, hypotheses: Sequence[Hypothesis]) -> int:
        """See ``Policy``."""
        newest = hypotheses[-1]
        reached = newest.num_words - self.keeps + 1
        asked = [one for one in hypotheses if one.num_words > reached]
        older = [one for one in hypotheses if one.num_words <= reached]
        if not older:
            return 0
        agreed = min(common(newest.units, one.units) for one in (older[-1], *asked))
        return max(0, min(agreed, len(newest.units) - self.held_back))
