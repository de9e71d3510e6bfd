"""GUARANTEE.md holds while replicas die, drain and freeze and connections are cut."""

from tests.conftest import Models
from tests.robustness.chaos import FAULTS, chaos, marked_speech

SEED = 1


async def test_no_word_is_lost_repeated_or_moved(models: Models) -> None:
    """W1, W2, F1, F3, D1, C1, under a recogniser that answers alike when asked alike."""
    models("silero-vad")
    models("speech")
    outcome = await chaos(
        [marked_speech()], seed=SEED, duration_s=20, every_s=1.5, sessions=4, speed=3.0
    )
    assert len(outcome.words or ()) > 50
    assert set(outcome.faults) == set(FAULTS)
    assert outcome.violations == []
