"""AlignAtt for translation: text is certain whose attention stays away from the newest words.

Source: Papi et al., "AlignAtt: Using Attention-based Audio-Translation Alignments as a Guide for
Simultaneous Speech Translation", 2023, with words of the source in the place of frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.translator.policies.policy import Hypothesis


@dataclass(frozen=True, slots=True)
class AlignAtt:
    """A unit is certain while it and all before it come from words that are old enough."""

    margin: int = 2
    """The newest words of the source, from which nothing certain comes."""
    keeps: int = 1

    def certain(self, hypotheses: Sequence[Hypothesis]) -> int:
        """See ``Policy``."""
        newest = hypotheses[-1]
        first_new = newest.num_words - self.margin
        for place, source in enumerate(newest.sources):
            if source >= first_new:
                return place
        return len(newest.sources)
