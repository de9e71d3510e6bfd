"""AlignAtt: a word is certain once attention stays away from the end of the audio.

A word whose attention reaches the border may go on in sound that has not come yet; the words before
it cannot. Attention is read as the monotone path through the alignment heads from which words have
their times, so that a single stray frame decides nothing.

Source: Papi et al., "AlignAtt: Using Attention-based Audio-Translation Alignments as a Guide for
Simultaneous Speech Translation", Interspeech 2023; Wang et al., "Simul-Whisper", Interspeech 2024;
Macháček and Polák, "Simultaneous Translation with Offline Speech and LLM Models in CUNI Submission
to IWSLT 2025".
"""

from collections.abc import Sequence
from itertools import takewhile

from services.common.words import Word


def attended(words: Sequence[Word], *, before_sample: int) -> int:
    """How many leading words attention places before a position.

    Args:
        words: What follows the committed words, oldest first.
        before_sample: The end of the audio less the frame threshold.

    """
    return sum(1 for _ in takewhile(lambda word: word.end_sample <= before_sample, words))
