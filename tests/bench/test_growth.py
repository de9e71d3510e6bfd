import pytest

from bench.converse import Captions, Heard
from bench.corpus import Clip, TimedWord
from bench.growth import Used, slope, summary
from bench.report import quantiles


def test_a_line_rises_by_its_slope_without_error() -> None:
    rise = slope([(0, minute, 1.0 + 0.01 * minute) for minute in range(30)])
    assert rise == {"per_hour": pytest.approx(0.6), "error": pytest.approx(0.0, abs=1e-6)}


def test_noise_alone_rises_by_less_than_two_of_its_errors() -> None:
    rise = slope([(0, minute, 1.0 + 0.1 * (-1) ** minute) for minute in range(30)])
    assert abs(rise["per_hour"]) < 2 * rise["error"]


def test_slow_words_that_come_late_are_no_rise() -> None:
    points = [(kind, 3.0 * turn + kind, 1.0 + kind) for kind in range(3) for turn in range(4)]
    assert slope(points) == {"per_hour": 0.0, "error": 0.0}


def test_what_never_comes_again_has_no_slope() -> None:
    assert slope([(0, 0, 1.0), (1, 1, 2.0), (2, 2, 3.0)]) == {}
    assert slope([(0, 0, 1.0), (0, 1, 2.0)]) == {}


def test_a_session_is_told_minute_by_minute() -> None:
    words = tuple(TimedWord(f"w{place}", 10.0 * place, 10.0 * place + 1) for place in range(12))
    clip = Clip("2 min", bytes(120 * 32_000), " ".join(w.text for w in words), "en", words)
    heard = Heard(
        captions=[
            Captions(word.end_s + (1 if word.end_s < 60 else 2), (word,), "") for word in words
        ]
    )
    told = summary(clip, heard, [Used(0, 5.0, 90), Used(60, 20.0, 100), Used(120, 50.0, 110)], 6)
    assert [minute["cpu_s_per_audio_s"] for minute in told["minutes"]] == [0.25, 0.5]
    assert [minute["final_s"]["p50"] for minute in told["minutes"]] == [1.0, 2.0]
    assert told["wer_percent"] == 0
    assert told["final_slope"]["per_hour"] > 30


def test_percentiles_are_interpolated() -> None:
    assert quantiles([0.0, 1.0, 2.0, 3.0], (50, 95)) == {"p50": 1.5, "p95": 2.85}
    assert quantiles([]) == {}
