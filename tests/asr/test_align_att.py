import pytest

from services.asr.policies.align_att import attended
from services.common.words import Word


@pytest.mark.parametrize(
    ("ends", "before", "certain"),
    [
        ([], 100, 0),
        ([80], 79, 0),
        ([80], 80, 1),
        ([80, 180, 280], 200, 2),
        ([80, 180, 280], 0, 0),
        ([80, 180, 280], -100, 0),
        # Attention that has been at the border does not come back.
        ([80, 280, 180], 200, 1),
    ],
)
def test_words_are_certain_up_to_the_first_that_attention_places_near_the_end(
    ends: list[int], before: int, certain: int
) -> None:
    words = [Word(" be", end - 50, end) for end in ends]
    assert attended(words, before_sample=before) == certain
