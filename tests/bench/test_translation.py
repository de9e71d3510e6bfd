import time

import pytest

from bench.translation import Reading, laal_s, read, speak
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.stream import Commit, Tail
from tests.translator.harness import EN_PT, Shouting, running

WORD = 6400


def commit(text: str, first: int, end: int) -> Commit:
    return Commit(text, first * WORD, end * WORD, end * WORD, b"")


def test_words_are_late_from_their_end_to_the_commit_that_covers_them() -> None:
    reading = Reading()
    reading.take([commit(" a b", 0, 2)], 1.0)
    reading.take([commit(" c", 2, 3)], 1.2)
    assert reading.lags_s == pytest.approx([0.6, 0.2, 0.0])
    assert reading.committed_s == [1.0, 1.0, 1.2]


def test_what_was_shown_and_is_gone_is_counted() -> None:
    reading = Reading()
    reading.take([Tail(" a b c", 0)], 0.4)
    assert reading.shown.erased == 0
    reading.take([commit(" a", 0, 1)], 0.8)
    assert reading.shown.erased == 0, "the commit says what the tail did"
    reading.take([Tail(" x c d", 0)], 1.2)
    assert reading.shown.erased == 2
    reading.take([commit(" x", 1, 2), Tail("", 0)], 1.6)
    assert reading.shown.erased == 2 + 2


def test_average_lagging_is_that_behind_a_steady_translation() -> None:
    """Four words in 1.6 s; each of four translated when it is said lags by one word."""
    assert laal_s([0.4, 0.8, 1.2, 1.6], 1.6, 4) == pytest.approx(0.4)
    # All at the end: only the first one counts, behind which nothing is waited for.
    assert laal_s([1.6, 1.6, 1.6, 1.6], 1.6, 4) == pytest.approx(1.6)
    # A long translation is not taken for a prompt one.
    assert laal_s([0.4, 0.8, 1.2, 1.2, 1.2, 1.2], 1.6, 4) > 0.2
    assert laal_s([], 1.6, 4) == 0


async def test_those_who_speak_at_once_are_heard_to_the_end_of_their_time() -> None:
    translator = Shouting()
    async with running(translator) as batcher:
        policy = LocalAgreement(2, 0)
        until_s = time.monotonic() + 1.5
        lags = await speak(["it was the best", "of"], EN_PT, translator, batcher, policy, until_s)
    assert 1 <= len(lags) <= 4
    assert all(lag >= 0 for lag in lags)


async def test_a_sentence_is_read_to_its_end() -> None:
    translator = Shouting()
    async with running(translator) as batcher:
        reading = await read("it was the best", EN_PT, translator, batcher, LocalAgreement(2, 0))
    assert reading.shown.words == ["IT", "WAS", "THE", "best~"]
    assert len(reading.lags_s) == 4
    assert all(lag >= 0 for lag in reading.lags_s)
