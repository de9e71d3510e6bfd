import random

import pytest

from bench.corpus import BYTES_PER_S, Clip, TimedWord
from bench.deepgram import moments, piece, summary
from bench.listen_client import Listened, Result, listen
from tests.bench.serving import gateway

WORDS = (TimedWord("to", 0.5, 0.9), TimedWord("be", 1.0, 1.4))


def result(at_s: float, text: str, *, end_s: float, **kinds: bool) -> Result:
    told = {"final": False, "from_finalize": False, **kinds}
    words = tuple(TimedWord(f" {word.text}", word.start_s, word.end_s) for word in WORDS)
    said = words[: len(text.split())]
    return Result(at_s, at_s - 0.1, 0.0, end_s, text, said, **told)


def test_interim_results_are_as_old_as_what_was_sent_and_not_told_of() -> None:
    listened = Listened(
        results=[
            result(1.3, "to", end_s=1.0),
            result(2.0, "to be", end_s=1.6),
            result(2.5, "to be", end_s=1.8, final=True),
            result(2.9, "", end_s=2.7, final=True, from_finalize=True),
        ],
        finalized_s=[2.6],
        closing_s=3.0,
        closed_s=3.2,
    )
    clip = Clip("clip", b"", "to be", "en", WORDS)
    found = summary([(clip, listened)], [listened])
    assert found["interims"] == 4
    assert found["interim_behind_s"]["p50"] == pytest.approx(0.25)  # 1.2 - 1.0, 1.9 - 1.6
    assert found["last_word_old_s"]["p50"] == pytest.approx(0.5)  # 1.3 - 0.9, 2.0 - 1.4
    assert found["first_shown_s"]["p50"] == pytest.approx(0.5)
    assert found["final_s"]["p50"] == pytest.approx((1.6 + 1.1) / 2)
    assert (found["finalizes"], found["finalize_s"]["p50"]) == (1, 0.3)
    assert (found["closes"], found["close_s"]["p50"]) == (1, 0.2)
    assert Listened.of(listened.row()).row() == listened.row()


async def test_the_client_asks_for_what_was_said_so_far_and_waits_for_the_end() -> None:
    clip = Clip("clip", bytes(3 * BYTES_PER_S), "", "en")
    async with gateway(0.5, 1.5) as mesh:
        listened = await listen(mesh.url, clip, finalize_at_s=[1.05, 2.2])
    assert listened.text.split() == ["w0", "w1"]
    assert listened.finalized_s == pytest.approx([1.05, 2.2], abs=0.1)
    assert len(listened.finalize_delays_s) == 2
    assert all(delay_s > 0 for delay_s in listened.finalize_delays_s)
    assert listened.closing_s == pytest.approx(3.0, abs=0.1)
    assert listened.close_delay_s > 0
    assert any(not told.final for told in listened.results)


def test_pieces_are_cut_from_anywhere_and_asked_twice() -> None:
    rng = random.Random(0)
    whole = Clip("whole", bytes(60 * BYTES_PER_S), "", "en")
    for _ in range(100):
        cut = piece([whole], rng)
        assert 7.9 < cut.audio_s < 14.1
        first, second = moments(cut, rng)
        assert 1.0 <= first < second <= cut.audio_s
