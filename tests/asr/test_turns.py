"""Times are those of a clock that the tests move."""

from collections.abc import Hashable

import numpy as np
import pytest

from services.asr.recognizer import Window
from services.asr.turns import Seat, Turn, Turns

WINDOW = Window(np.zeros(1, np.float32), 0)


def turn(
    deadline_s: float, bucket: Hashable = 0, *, live: bool = True, asked_s: float = 0.0
) -> Turn:
    return Turn(WINDOW, bucket, live, asked_s, deadline_s)


def order(turns: Turns[Turn], now_s: float) -> list[list[float]]:
    """The deadlines of those who wait, batch by batch."""
    batches = []
    while batch := turns.like_next(now_s):
        turns.take(batch, now_s)
        batches.append([turn.deadline_s for turn in batch])
    return batches


def waiting(*those: Turn) -> Turns[Turn]:
    turns: Turns[Turn] = Turns()
    for each in those:
        turns.add(each)
    return turns


def file(asked_s: float, bucket: Hashable = 0) -> Turn:
    return turn(asked_s, bucket, live=False, asked_s=asked_s)


@pytest.mark.parametrize(
    ("those", "expected"),
    [
        ([], []),
        ([turn(3), turn(1), turn(2)], [[1, 2, 3]]),
        ([turn(3, "a"), turn(1, "b"), turn(2, "a")], [[1], [2, 3]]),
        ([file(1), turn(3), file(2), turn(4)], [[3, 4], [1, 2]]),
        ([file(1, "a"), file(2, "b"), file(3, "a")], [[1, 3], [2]]),
    ],
)
def test_the_nearest_deadline_goes_first_with_its_like_and_files_last(
    those: list[Turn], expected: list[list[float]]
) -> None:
    assert order(waiting(*those), now_s=5) == expected


def test_whoever_has_left_waits_no_more() -> None:
    stays, leaves = turn(2), turn(1)
    turns = waiting(stays, leaves)
    turns.drop(leaves)
    turns.drop(leaves)
    assert list(turns.like_next(0)) == [stays]
    assert (len(turns), turns.live) == (1, 1)


def test_a_file_waits_for_ten_seconds_at_most_and_live_streams_for_one_batch_of_files() -> None:
    """Live streams ask for more than there is: something live always waits."""
    files = [file(asked_s=float(n), bucket=n) for n in range(3)]
    turns = waiting(*files)
    went: dict[int, Turn] = {}
    for now_s in range(60):
        turns.add(turn(now_s + 1.0))
        turns.add(turn(now_s + 1.0, "other"))
        batch = turns.like_next(now_s)
        if not batch[0].live:
            went[now_s] = batch[0]
        turns.take(batch, now_s)
    assert went == dict(zip((10, 20, 30), files, strict=True))


# --- who asks for more than its share


def test_a_stream_that_keeps_its_pace_is_due_within_a_step_and_soon_at_a_pause() -> None:
    seat = Seat(live=True, asked_s=0)
    for step in range(100):
        assert seat.ask(step * 1.0, step_s=1.0, final=False) == step + 1
    assert seat.ask(99.5, step_s=1.0, final=True) == pytest.approx(99.8)
    # Speech of 4.5 s and a pause of one, again and again, while steps are as long as can be.
    seat = Seat(live=True, asked_s=0)
    for pause_s in (5.5 * n for n in range(1, 50)):
        for asked_s in (pause_s - 4.5, pause_s - 2.5):
            assert seat.ask(asked_s, step_s=2.0, final=False) == asked_s + 2
        assert seat.ask(pause_s - 1.0, step_s=2.0, final=True) == pause_s - 0.7


def test_a_stream_that_floods_is_due_ever_later_and_soon_forgiven() -> None:
    seat = Seat(live=True, asked_s=0)
    deadlines = [seat.ask(n * 0.01, step_s=1.0, final=True) for n in range(50)]
    assert deadlines[1] == pytest.approx(0.31)
    assert deadlines[5] == pytest.approx(5 * 0.75)
    assert deadlines[-1] == pytest.approx(0.48 + 10, abs=0.02), "10 s late, not 49"
    assert seat.ask(20, step_s=1.0, final=True) == pytest.approx(20.3)


def test_a_file_is_due_when_it_asks() -> None:
    seat = Seat(live=False, asked_s=0)
    assert [seat.ask(5, step_s=1.0, final=True) for _ in range(3)] == [5, 5, 5]
    assert not seat.speaks(5)


@pytest.mark.parametrize(
    ("now_s", "asking", "speaks"),
    [(0, False, True), (4.9, False, True), (5.1, False, False), (60, True, True)],
)
def test_who_asked_lately_or_still_waits_speaks(now_s: float, asking: bool, speaks: bool) -> None:
    seat = Seat(live=True, asked_s=0.0, waiting=asking)
    assert seat.speaks(now_s) is speaks


def simulate(
    streams: int, *, run_s: float, greedy: bool, entitled_s: float = 1.0, until_s: float = 60.0
) -> tuple[list[float], list[int]]:
    """One worker; streams ask once per second of their audio, a greedy one as soon as it may.

    Returns:
        How long each window of the modest ones took, and how many windows each stream got, the
        greedy one last.

    """
    turns: Turns[Turn] = Turns()
    seats = [Seat(live=True, asked_s=0.0) for _ in range(streams + greedy)]
    due_s = [number / streams for number in range(streams)] + [0.0] * greedy
    asked: dict[Turn, int] = {}
    took: list[float] = []
    got = [0] * len(seats)
    now_s = 0.0
    while now_s < until_s:
        for number, seat in enumerate(seats):
            if due_s[number] <= now_s and number not in asked.values():
                floods = number == streams
                at_s = now_s if floods else due_s[number]
                each = turn(seat.ask(at_s, step_s=entitled_s, final=floods), number, asked_s=at_s)
                asked[each] = number
                turns.add(each)
        if not (batch := turns.like_next(now_s)):
            now_s = min(due_s)
            continue
        turns.take(batch, now_s)
        now_s += run_s
        for each in batch:
            number = asked.pop(each)
            got[number] += 1
            due_s[number] = now_s if number == streams else max(now_s, each.asked_s + 1.0)
            if number < streams:
                took.append(now_s - each.asked_s)
    return took, got


def test_a_greedy_stream_takes_what_the_others_leave() -> None:
    alone, _ = simulate(3, run_s=0.2, greedy=False)
    took, got = simulate(3, run_s=0.2, greedy=True)
    assert max(took) < max(alone) + 3 * 0.2, "at first it has windows that it is entitled to"
    assert max(took[9:]) <= max(alone) + 0.2 + 1e-9, "then they wait for its window in flight only"
    assert got[:3] == [60] * 3
    assert got[3] > 100


def test_under_load_a_greedy_stream_gets_little_more_than_any_other() -> None:
    """Seven windows take 1.4 s, and a step that leaves time to spare would be 1.75 s."""
    _, got = simulate(6, run_s=0.2, greedy=True, entitled_s=1.75)
    modest, greedy = got[:6], got[6]
    assert 0 < greedy <= 4 / 3 * max(modest)
    assert max(modest) - min(modest) <= 1
