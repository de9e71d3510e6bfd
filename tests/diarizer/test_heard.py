"""Two clocks: what was heard, and the lane."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.diarizer.heard import HeardClock

moves = st.lists(
    st.tuples(st.sampled_from(["hear", "leave out"]), st.integers(1, 30)), min_size=1, max_size=20
)


def moved(heard_sample: int, lane_sample: int, moves: list[tuple[str, int]]) -> HeardClock:
    clock = HeardClock(heard_sample, lane_sample)
    for what, num_samples in moves:
        (clock.hear if what == "hear" else clock.leave_out)(num_samples)
    return clock


def lane_of(heard_sample: int, lane_sample: int, moves: list[tuple[str, int]]) -> dict[int, int]:
    """Where each sample that was heard lies on the lane, sample by sample."""
    found = {}
    for what, num_samples in moves:
        for _ in range(num_samples):
            if what == "hear":
                found[heard_sample] = lane_sample
                heard_sample += 1
            lane_sample += 1
    return found


@given(moves=moves, first=st.integers(0, 50), lane=st.integers(0, 50))
def test_every_sample_lies_where_it_was_sent(
    moves: list[tuple[str, int]], first: int, lane: int
) -> None:
    clock = moved(first, lane, moves)
    expected = lane_of(first, lane, moves)
    assert clock.heard_sample == first + len(expected)
    assert clock.lane_sample == lane + sum(num_samples for _, num_samples in moves)
    assert {sample: clock.start_of(sample) for sample in expected} == expected
    assert clock.start_of(clock.heard_sample) == clock.lane_sample


@given(moves=moves, begin=st.integers(0, 300), length=st.integers(0, 300))
def test_a_stretch_lies_in_as_many_pieces_as_it_was_torn_into(
    moves: list[tuple[str, int]], begin: int, length: int
) -> None:
    clock = moved(0, 0, moves)
    expected = lane_of(0, 0, moves)
    wanted = [expected[sample] for sample in range(begin, begin + length) if sample in expected]
    spans = list(clock.spans(begin, begin + length))
    assert [sample for span in spans for sample in range(*span)] == wanted
    assert all(before[1] < after[0] for before, after in pairwise(spans)), "none touch"


@given(moves=moves, share=st.floats(0, 1))
def test_what_is_forgotten_is_only_what_came_before(
    moves: list[tuple[str, int]], share: float
) -> None:
    clock, whole = moved(0, 0, moves), moved(0, 0, moves)
    before = int(clock.heard_sample * share)
    clock.forget(before)
    end = clock.heard_sample
    assert list(clock.spans(before, end)) == list(whole.spans(before, end))
    assert [clock.start_of(n) for n in range(before, end)] == [
        whole.start_of(n) for n in range(before, end)
    ]


@given(moves=moves, later=moves, step=st.integers(1, 40))
def test_behind_a_jump_both_clocks_go_on(
    moves: list[tuple[str, int]], later: list[tuple[str, int]], step: int
) -> None:
    clock = moved(0, 0, moves)
    clock.leave_out(5)
    position, lane = -(-clock.heard_sample // step) * step, clock.lane_sample
    clock.jump(position)
    assert clock.start_of(position) == lane
    for what, num_samples in later:
        (clock.hear if what == "hear" else clock.leave_out)(num_samples)
    expected = lane_of(position, lane, later)
    assert {sample: clock.start_of(sample) for sample in expected} == expected


def test_silence_is_what_was_left_out_since_something_was_heard() -> None:
    clock = HeardClock(0, 0)
    seen = []
    for what, num_samples in [("out", 3), ("out", 4), ("hear", 1), ("out", 2), ("hear", 5)]:
        (clock.hear if what == "hear" else clock.leave_out)(num_samples)
        seen.append(clock.silence_samples)
    assert seen == [3, 7, 0, 2, 0]


def test_a_clock_that_forgets_stays_small() -> None:
    clock = HeardClock(0, 0)
    for _ in range(10_000):
        clock.hear(3)
        clock.leave_out(3)
        clock.forget(clock.heard_sample - 30)
    assert len(clock._pieces) <= 12
