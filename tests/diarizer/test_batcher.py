import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from services.common.errors import DeviceError, SaturatedError
from services.diarizer.batcher import Batcher
from services.diarizer.diarizer import Finding, Step, Wishes
from tests.diarizer.harness import FRAME, POISON, LevelDiarizer, LevelMemory, levels, running
from tests.settings.serving import until

if TYPE_CHECKING:
    from services.diarizer.batcher import Seat


def step(end_sample: int = 8 * FRAME, level: int = 1, *, num_samples: int = 8 * FRAME) -> Step:
    heard = levels((level, num_samples))
    return Step(LevelMemory((), end_sample - num_samples), heard, end_sample, 0, Wishes(20))


def ask(batcher: Batcher, seat: "Seat", step: Step) -> "asyncio.Task[Finding]":
    return asyncio.create_task(batcher.advance(step, seat))


async def all_wait() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_steps_that_wait_together_share_a_run() -> None:
    diarizer = LevelDiarizer()
    batcher = Batcher(diarizer, workers=1, max_batch=8)
    with batcher.seat(live=True) as seat:
        jobs = [ask(batcher, seat, step()) for _ in range(11)]
        await all_wait()
        async with asyncio.timeout(20):
            work = asyncio.create_task(batcher.run())
            await asyncio.gather(*jobs)
            work.cancel()
    assert [len(batch) for batch in diarizer.batches] == [8, 3]


async def test_steps_that_are_not_alike_run_apart() -> None:
    diarizer = LevelDiarizer()
    async with running(diarizer) as batcher:
        with batcher.seat(live=True) as seat:
            diarizer.gate.clear()
            jobs = [ask(batcher, seat, step())]
            await until(lambda: diarizer.running == 1)
            for num_samples in (FRAME, 2 * FRAME, FRAME):
                jobs.append(ask(batcher, seat, step(9000, num_samples=num_samples)))
                await all_wait()
            diarizer.gate.set()
            await asyncio.gather(*jobs)
    assert [len(batch) for batch in diarizer.batches] == [1, 2, 1]


async def test_workers_that_are_free_share_what_there_is() -> None:
    diarizer = LevelDiarizer()
    batcher = Batcher(diarizer, workers=3, max_batch=8)
    with batcher.seat(live=True) as seat:
        jobs = [ask(batcher, seat, step()) for _ in range(6)]
        await all_wait()
        work = asyncio.create_task(batcher.run())
        await asyncio.gather(*jobs)
        work.cancel()
    assert sorted(len(batch) for batch in diarizer.batches) == [2, 2, 2]


async def test_one_bad_step_does_not_take_the_others_down() -> None:
    diarizer = LevelDiarizer()
    batcher = Batcher(diarizer, workers=1, max_batch=8)
    bad = step(level=2)
    bad.audio[3] = POISON
    with batcher.seat(live=True) as seat:
        jobs = [ask(batcher, seat, one) for one in (step(level=3), bad, step(level=4))]
        await all_wait()
        async with asyncio.timeout(20):
            work = asyncio.create_task(batcher.run())
            first, failed, last = await asyncio.gather(*jobs, return_exceptions=True)
            again = await ask(batcher, seat, step())
            work.cancel()
    assert isinstance(failed, DeviceError)
    for finding, level in ((first, 3), (last, 4), (again, 1)):
        assert isinstance(finding, Finding)
        assert finding.memory == LevelMemory((level,), 8 * FRAME)


async def test_a_bug_of_the_engine_ends_the_stream_that_met_it_alone() -> None:
    class Broken(LevelDiarizer):
        def advance(self, steps: Sequence[Step]) -> list[Finding]:
            if any(step.end_sample == 7 * FRAME for step in steps):
                raise ZeroDivisionError
            return super().advance(steps)

    async with running(Broken()) as batcher:
        with batcher.seat(live=True) as seat:
            with pytest.raises(ZeroDivisionError):
                await batcher.advance(step(7 * FRAME, num_samples=FRAME), seat)
            assert await batcher.advance(step(), seat)


async def test_live_steps_come_before_those_of_files() -> None:
    diarizer = LevelDiarizer()
    async with running(diarizer, max_batch=1) as batcher:
        with batcher.seat(live=True) as live, batcher.seat(live=False) as file:
            diarizer.gate.clear()
            jobs = [ask(batcher, file, step(8000))]
            await until(lambda: diarizer.running == 1)
            for seat, end_sample in ((file, 9000), (live, 10_000), (file, 11_000), (live, 12_000)):
                jobs.append(ask(batcher, seat, step(end_sample)))
                await all_wait()
            diarizer.gate.set()
            await asyncio.gather(*jobs)
    assert [end for [end] in diarizer.batches] == [8000, 10_000, 12_000, 9000, 11_000]


async def test_a_stream_that_left_is_forgotten() -> None:
    diarizer = LevelDiarizer()
    async with running(diarizer) as batcher:
        with batcher.seat(live=True) as seat:
            diarizer.gate.clear()
            first = ask(batcher, seat, step(8000))
            await until(lambda: diarizer.running == 1)
            left, stays = (ask(batcher, seat, step(end)) for end in (9000, 10_000))
            await all_wait()
            left.cancel()
            first.cancel()
            await all_wait()
            diarizer.gate.set()
            assert await stays
    assert diarizer.batches == [[8000], [10_000]]
    assert first.cancelled()
    assert left.cancelled()


async def learnt(batcher: Batcher, cost_s: float) -> None:
    """Let the batcher believe that a step takes so long."""
    batcher._step_cost_s = 0
    batcher._learn(cost_s)


async def test_a_stream_for_which_there_is_no_room_is_refused_once_the_cost_is_known() -> None:
    diarizer = LevelDiarizer()
    batcher = Batcher(diarizer, workers=2, max_batch=8)
    step_s = diarizer.step_samples / 16_000
    assert batcher.capacity > 1000, "nothing is known yet"
    await learnt(batcher, step_s * 0.8)
    assert batcher.capacity == 2
    with batcher.seat(live=True), batcher.seat(live=False), batcher.seat(live=True):
        with (
            pytest.raises(SaturatedError, match="2 live streams speak, and 2 fit"),
            batcher.seat(live=True),
        ):
            pass
        # One that moves here was promised its place, and files wait behind all others.
        with batcher.seat(live=True, moved=True), batcher.seat(live=False):
            pass
    with batcher.seat(live=True):
        await learnt(batcher, step_s * 100)
        assert batcher.capacity == 0
        with pytest.raises(SaturatedError), batcher.seat(live=True):
            pass
    with batcher.seat(live=True):
        """Where nobody speaks there is room for one, or nothing would be learnt any more."""


async def test_who_has_been_silent_for_long_takes_no_room() -> None:
    diarizer = LevelDiarizer()
    batcher = Batcher(diarizer, workers=1, max_batch=8)
    await learnt(batcher, diarizer.step_samples / 16_000)
    with batcher.seat(live=True) as silent:
        silent.asked_s -= 60
        with batcher.seat(live=True):
            pass


async def test_what_a_step_costs_is_measured_and_a_probe_measures_nothing() -> None:
    async with running(LevelDiarizer()) as batcher:
        assert batcher.idle_s == float("inf")
        await batcher.probe(step())
        assert batcher.idle_s < 60
        assert batcher._step_cost_s == 0
        with batcher.seat(live=True) as seat:
            await batcher.advance(step(), seat)
        assert batcher._step_cost_s > 0


async def test_a_probe_of_a_broken_model_says_so() -> None:
    bad = step()
    bad.audio[0] = POISON
    async with running(LevelDiarizer()) as batcher:
        with pytest.raises(DeviceError, match="a bad step"):
            await batcher.probe(bad)
        assert batcher.idle_s == float("inf")


async def test_the_model_runs_on_its_own_threads_only() -> None:
    names = set()

    class Nosy(LevelDiarizer):
        def advance(self, steps: Sequence[Step]) -> list[Finding]:
            names.add(threading.current_thread().name)
            return super().advance(steps)

    async with running(Nosy(), workers=2, max_batch=1) as batcher:
        with batcher.seat(live=True) as seat:
            await asyncio.gather(*(ask(batcher, seat, step()) for _ in range(50)))
    assert names <= {"diarizer.model_0", "diarizer.model_1"}
