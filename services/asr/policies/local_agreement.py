"""LocalAgreement-2: words that two consecutive hypotheses share are certain.

Source: Liu et al., "Low-Latency Sequence-to-Sequence Speech Recognition and Translation by Partial
Hypothesis Selection", Interspeech 2020; Macháček et al., "Turning Whisper into Real-Time
Transcription System", 2023.
"""

from collections.abc import Sequence
from itertools import takewhile

from services.asr.policies.normal_form import normal_form
from services.common.words import Word


def agree(previous: Sequence[Word], current: Sequence[Word], *, before_sample: int) -> int:
    """How many leading words two consecutive hypotheses share.

    Args:
        previous: Hypothesis of the last step, after what was committed, oldest word first.
        current: Hypothesis of this step, over the same audio and some more.
        before_sample: Words that end later are not certain yet: a word without a second of sound
            behind it is often heard wrong twice in the same way.

    """
    pairs = zip(previous, current, strict=False)
    shared = takewhile(
        lambda pair: (
            normal_form(pair[0].text) == normal_form(pair[1].text)
            and pair[1].end_sample <= before_sample
        ),
        pairs,
    )
    return sum(1 for _ in shared)
