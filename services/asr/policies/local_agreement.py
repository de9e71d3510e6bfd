"""LocalAgreement-n: words that n consecutive hypotheses share are certain.

Source: Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial
Hypothesis Selection", Interspeech 2020; Macháček et al., "Turning Whisper into Real-Time
Transcription System", 2023.
"""

from collections.abc import Sequence

from services.asr.policies.normal_form import normal_form
from services.common.words import Word


def agree(
    previous: Sequence[Sequence[Word]], current: Sequence[Word], *, num_hypotheses: int
) -> int:
    """How many leading words consecutive hypotheses share.

    Args:
        previous: Hypotheses of the last steps, after what was committed, oldest first; each has
            its oldest word first.
        current: Hypothesis of this step, over the same audio and some more.
        num_hypotheses: How many have to agree, the current one among them.

    """
    others = previous[len(previous) - (num_hypotheses - 1) :]
    if len(previous) < num_hypotheses - 1:
        return 0
    shared = 0
    for words in zip(current, *others, strict=False):
        if len({normal_form(word.text) for word in words}) > 1:
            break
        shared += 1
    return shared
