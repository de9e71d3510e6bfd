"""Wait-k: text follows speech at a fixed distance.

Source: Ma et al., "STACL: Simultaneous Translation with Implicit Anticipation and Controllable
Latency using Prefix-to-Prefix Framework", 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.translator.policies.policy import Hypothesis


@dataclass(frozen=True, slots=True)
class WaitK:
    """So many units are certain as words were said, less a fixed number."""

    k: int = 5
    keeps: int = 1

    def certain(self, hypotheses: Sequence[Hypothesis]) -> int:
        """See ``Policy``."""
        newest = hypotheses[-1]
        return max(0, min(newest.num_words - self.k, len(newest.units)))
