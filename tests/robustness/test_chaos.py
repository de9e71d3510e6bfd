"""GUARANTEE.md holds while replicas die, drain and freeze and connections are cut."""

import pytest

from tests.conftest import Models
from tests.robustness.chaos import FAULTS, chaos, marked_speech

SEED = 20


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_word_is_lost_repeated_or_moved(models: Models, fault: str) -> None:
    """W1, W2, F1, F3, D1, C1, under a recogniser that answers alike when asked alike."""
    models("silero-vad")
    models("speech")
    outcome = await chaos(
        marked_speech(),
        seed=SEED,
        duration_s=12,
        every_s=2.0,
        sessions=4,
        speed=3.0,
        faults=[fault],
    )
    assert len(outcome.undisturbed) > 50
    assert outcome.faults[fault] >= 3
    assert outcome.violations == []
