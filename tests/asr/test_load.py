import math
from dataclasses import replace

import pytest

from services.asr.load import FadingMean, Limits, Load, Utilisation, WindowCost


def limits(
    *, workers: int = 1, max_batch: int = 16, max_streams: int = 100, max_step_s: float = 2.0
) -> Limits:
    return Limits(workers, max_batch, max_streams, min_step_s=0.5, max_step_s=max_step_s)


def measured(load: Load, *runs: tuple[int, float], live: bool = True) -> Load:
    for num_windows, run_s in runs:
        load.decoded(num_windows, run_s, live=live)
    return load


@pytest.mark.parametrize(
    ("speaking", "cost_s", "workers", "step_s"),
    [
        (0, 0.4, 1, 0.5),  # nobody speaks
        (1, 0.0, 1, 0.5),  # nothing is known yet
        (1, 0.4, 1, 0.5),  # exactly enough
        (2, 0.4, 1, 1.0),
        (3, 0.4, 1, 1.5),
        (3, 0.4, 3, 0.5),
        (4, 0.4, 2, 1.0),
        (4, 0.2, 1, 1.0),
        (4, 0.4, 1, 2.0),
        (9, 0.4, 1, 2.0),  # no room: what is admitted stays, and asks no more often than this
    ],
)
def test_the_step_keeps_workers_four_fifths_busy(
    speaking: int, cost_s: float, workers: int, step_s: float
) -> None:
    load = Load(limits(workers=workers))
    if cost_s:
        measured(load, (1, cost_s))
    assert load.step_s(speaking) == pytest.approx(step_s)


@pytest.mark.parametrize(
    ("cost_s", "workers", "max_step_s", "capacity"),
    [
        (0.0, 1, 2.0, 100),  # nothing is known yet: the slots decide
        (0.001, 1, 2.0, 100),
        (0.39, 1, 2.0, 4),
        (0.41, 1, 2.0, 3),
        (0.39, 2, 2.0, 8),
        (0.39, 1, 4.0, 8),
        (5.0, 1, 2.0, 0),
    ],
)
def test_the_capacity_is_how_many_can_be_decoded_within_the_longest_step(
    cost_s: float, workers: int, max_step_s: float, capacity: int
) -> None:
    load = Load(limits(workers=workers, max_step_s=max_step_s))
    if cost_s:
        measured(load, (1, cost_s))
    assert load.capacity == capacity
    for speaking in range(1, 100):
        assert load.has_room(speaking) is (speaking <= capacity)


def test_streams_that_have_just_begun_make_no_room_seem_larger() -> None:
    load = Load(limits(max_step_s=2.0))
    load.measured(0.4)
    assert load.capacity == 4
    measured(load, *[(1, 0.1)] * 100)
    assert load.needed_step_s(4) == pytest.approx(0.5, rel=0.01), "their windows are short"
    assert load.capacity == 4, "and will be long"
    measured(load, *[(1, 0.8)] * 100)
    assert load.capacity == 2, "the machine has become slower"


def test_new_streams_are_let_in_up_to_a_shorter_step_than_the_longest() -> None:
    load = measured(Load(replace(limits(max_step_s=2.0), admit_step_s=1.0)), (1, 0.39))
    assert load.capacity == 2
    assert load.step_s(4) == pytest.approx(1.95), "those who are in share what there is"


def test_there_is_no_room_while_windows_wait_for_a_worker() -> None:
    load = measured(Load(limits()), (1, 0.1))
    for wait_s, room in [(0.1, True), (0.9, False), (0.0, True)]:
        for _ in range(50):
            load.waited(wait_s)
        assert load.has_room(2) is room
    assert load.capacity > 2


def test_who_lets_streams_in_with_a_longer_step_lets_windows_wait_longer() -> None:
    for admit_step_s, room in [(1.0, False), (10.0, True)]:
        chosen = replace(limits(max_step_s=10.0), admit_step_s=admit_step_s)
        load = measured(Load(chosen), (1, 0.1))
        load.waited(0.9)
        assert load.has_room(2) is room


def test_batches_count_as_far_as_streams_are_alike_enough_to_fill_them() -> None:
    load = measured(Load(limits()), (1, 0.2), (2, 0.22), (8, 0.32))
    assert load.needed_step_s(8) == pytest.approx(8 * 0.2 / 0.8), "no two were seen to be alike"
    load.gathered(2, 5)
    assert load.needed_step_s(3) == pytest.approx(3 * 0.2 / 0.8), "1.5 are together"
    assert load.needed_step_s(6) == pytest.approx(6 * 0.11 / 0.8), "2.25 are"
    assert load.needed_step_s(29) == pytest.approx(29 * 0.04 / 0.8), "8 are"


def test_no_batch_counts_that_is_larger_than_it_may_be() -> None:
    load = measured(Load(limits(max_batch=4)), (1, 0.2), (4, 0.4), (8, 0.4))
    load.gathered(9, 9)
    assert load.needed_step_s(50) == pytest.approx(50 * 0.1 / 0.8)


def test_a_batch_costs_what_was_measured_of_its_size_or_less() -> None:
    cost = WindowCost()
    assert cost.at(1) == 0
    cost.add(5, 1.0)  # 4 to 7
    assert [cost.at(n) for n in (1, 4, 9)] == pytest.approx([0.2] * 3)
    cost.add(1, 0.3)
    cost.add(16, 8.0)  # slower than ever: nobody has to make such a batch
    assert [cost.at(n) for n in (1, 3.9, 4, 100)] == pytest.approx([0.3, 0.3, 0.2, 0.2])


def test_a_cost_that_changes_is_known_after_some_batches() -> None:
    load = measured(Load(limits()), *[(1, 2.0)] * 100)
    assert load.capacity == 0
    measured(load, *[(1, 0.2)] * 16)
    assert 0.5 < load.needed_step_s(1) * 0.8 < 1.0, "a third of it is old"
    measured(load, *[(1, 0.2)] * 64)
    assert load.capacity == 7
    measured(load, *[(1, 0.2)] * 64)
    assert load.needed_step_s(1) * 0.8 == pytest.approx(0.2, rel=0.01)


def test_files_cost_live_streams_nothing_but_the_wait_for_one_batch() -> None:
    load = measured(Load(limits()), (1, 0.3), live=False)
    assert load.capacity == 100
    assert load.files_at_once(speaking=0) == 16, "nobody waits"
    assert load.files_at_once(speaking=1) == 3, "a second of work"
    measured(load, *[(1, 3.0)] * 50, live=False)
    assert load.files_at_once(speaking=1) == 1
    measured(load, (16, 0.16), live=False)
    assert load.files_at_once(speaking=1) == 16


def test_a_fading_mean_is_one_from_its_first_value_on() -> None:
    mean = FadingMean(4)
    assert mean.value == 0
    mean.add(3)
    assert mean.value == 3
    mean.add(0, weight=4)
    assert mean.value == pytest.approx(3 * math.exp(-1) / (math.exp(-1) + 4))
    mean.add(0, weight=0)
    assert mean.value > 0


def test_utilisation_is_busy_time_over_all_time() -> None:
    share = Utilisation(workers=2, now_s=100)
    assert share.change(100) == 0
    assert share.idle == 2
    share.change(100, by=1)
    assert share.change(101) == pytest.approx(0.5)
    share.change(101, by=1)
    assert share.idle == 0
    assert 0.7 < share.change(103) < 0.9
    share.change(103, by=-2)
    assert share.change(104) < 0.75
    assert share.change(200) == pytest.approx(0, abs=1e-6)
    share.change(200, by=1)
    share.change(200, by=1)
    assert share.change(300) == pytest.approx(1)
