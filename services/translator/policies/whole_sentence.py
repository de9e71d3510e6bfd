"""The calm policy: nothing is certain before its sentence has ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.translator.policies.policy import Hypothesis


@dataclass(frozen=True, slots=True)
class WholeSentence:
    """Commits sentences, and shows nothing of one that grows."""

    keeps: int = 0

    def certain(self, hypotheses: Sequence[Hypothesis]) -> int:
        """See ``Policy``."""
        return 0
