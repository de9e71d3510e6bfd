"""GUARANTEE.md holds while replicas die, drain and freeze and connections are cut."""

from tests.conftest import Models
from tests.robustness.chaos import FAULTS, chaos, marked_speech
from tests.robustness.marks import speaker_of

SEED = 1


async def test_no_word_is_lost_repeated_or_moved_nor_its_speaker_another(models: Models) -> None:
    """W1, W2, F1, F3, F8, F9, D1, C1, under engines that answer alike when asked alike."""
    models("silero-vad")
    models("speech")
    outcome = await chaos(
        [marked_speech()], seed=SEED, duration_s=20, every_s=1.5, sessions=4, speed=3.0
    )
    assert len(outcome.words or ()) > 50
    assert outcome.speakers == [speaker_of(number) for number in range(len(outcome.speakers))]
    assert len(outcome.speakers) == len(outcome.words or ())
    assert set(outcome.faults) == set(FAULTS)
    assert outcome.violations == []
    hit = {name.partition("-")[0] for name in outcome.hit}
    assert hit == {"vad", "asr", "diarizer", "translator"}
    whole = [session for session in outcome.sessions if not session.history.lacks("translator")]
    assert len(whole) >= len(outcome.sessions) - 1
