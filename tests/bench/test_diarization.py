import pytest

from bench.diarization import Case, Told, known_after, score
from bench.mixtures import Conversation, SpokenBy
from services.common.audio import FloatArray, pcm_to_float

SILENCE: FloatArray = pcm_to_float(b"")
TRUTH = (SpokenBy(0.0, 4.0, "ada"), SpokenBy(5.0, 9.0, "grace"), SpokenBy(10.0, 14.0, "ada"))


def scored(*told: SpokenBy) -> dict[str, object]:
    case = Case("test", Conversation("one", SILENCE, TRUTH), (0.0, 15.0))
    return score(case, Told(told, tuple((turn.end_s, turn) for turn in told), 1.0))


def test_names_do_not_matter_to_a_score() -> None:
    row = scored(SpokenBy(0, 4, "2"), SpokenBy(5, 9, "1"), SpokenBy(10, 14, "2"))
    assert (row["missed_s"], row["false_s"], row["confused_s"]) == (0, 0, 0)
    assert (row["speakers"], row["speakers_told"], row["switches"]) == (2, 2, 0)
    assert row["jer_percent"] == 0


def test_what_is_wrong_is_counted_by_its_kind() -> None:
    row = scored(SpokenBy(1, 4, "1"), SpokenBy(5, 9.5, "2"), SpokenBy(10, 14, "2"))
    assert row["missed_s"] == 1
    assert row["false_s"] == 0.5
    assert row["confused_s"] == 4
    assert row["switches"] == 1


def test_borders_that_are_a_little_off_are_forgiven_with_a_collar() -> None:
    told = (SpokenBy(0.2, 4.2, "1"), SpokenBy(5.2, 9.2, "2"), SpokenBy(10.2, 14.2, "1"))
    row = scored(*told)
    assert row["missed_s"] == pytest.approx(0.6)
    assert row["collar_wrong_s"] == 0


def test_a_turn_is_known_when_it_is_first_ascribed_to_whom_it_belongs() -> None:
    said = [
        (5.5, SpokenBy(5.0, 5.5, "1")),
        (6.0, SpokenBy(5.0, 6.0, "2")),
        (6.5, SpokenBy(5.0, 6.5, "2")),
    ]
    assert known_after(TRUTH, said, {"1": "ada", "2": "grace"}) == [1.0]
