import asyncio
import threading

import numpy as np
import pytest

from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.vad.batcher import MAX_BATCH, STEPS_PER_TURN, Batcher
from services.vad.detector import WINDOW_SAMPLES, fresh_memory
from tests.vad.harness import EnergyDetector, running


def windows(num_windows: int, level: float = 0.1) -> FloatArray:
    return np.full((num_windows, WINDOW_SAMPLES), level, np.float32)


async def test_streams_that_wait_together_share_a_run() -> None:
    detector = EnergyDetector()
    batcher = Batcher(detector, threads=1)
    jobs = [
        asyncio.ensure_future(batcher.classify(windows(2), fresh_memory(detector)))
        for _ in range(MAX_BATCH + 5)
    ]
    await asyncio.sleep(0)  # all of them wait now
    async with running(batcher):
        await asyncio.gather(*jobs)
    assert detector.batches == [MAX_BATCH, MAX_BATCH, 5, 5]


async def test_a_long_job_takes_turns_with_the_others() -> None:
    detector = EnergyDetector()
    batcher = Batcher(detector, threads=1)
    done: list[str] = []

    async def job(name: str, num_windows: int) -> None:
        await batcher.classify(windows(num_windows), fresh_memory(detector))
        done.append(name)

    async with running(batcher), asyncio.TaskGroup() as tasks:
        tasks.create_task(job("long", 100 * STEPS_PER_TURN))
        await asyncio.sleep(0.01)  # it is under way
        for number in range(3):
            tasks.create_task(job(f"short {number}", 1))
    assert done == ["short 0", "short 1", "short 2", "long"]


async def test_a_bad_stream_fails_alone() -> None:
    detector = EnergyDetector()
    batcher = Batcher(detector, threads=1)
    bad = windows(4)
    bad[2, 0] = -1
    jobs = [
        asyncio.ensure_future(batcher.classify(part, fresh_memory(detector)))
        for part in (windows(4, 0.05), bad, windows(4, 0.2))
    ]
    await asyncio.sleep(0)
    async with running(batcher):
        first, failed, last = await asyncio.gather(*jobs, return_exceptions=True)
        alone = await batcher.classify(windows(4, 0.2), fresh_memory(detector))
    assert isinstance(failed, DeviceError)
    assert not isinstance(first, BaseException)
    assert not isinstance(last, BaseException)
    assert last[0] == alone[0], "a step that was repeated counts once"


async def test_a_stream_that_left_is_not_classified() -> None:
    detector = EnergyDetector()
    batcher = Batcher(detector, threads=1)
    left = asyncio.ensure_future(batcher.classify(windows(50), fresh_memory(detector)))
    stays = asyncio.ensure_future(batcher.classify(windows(1), fresh_memory(detector)))
    await asyncio.sleep(0)
    left.cancel()
    async with running(batcher):
        await stays
    assert detector.batches == [1]


async def test_the_model_runs_on_its_own_threads_only() -> None:
    class Nosy(EnergyDetector):
        names: set[str] = set()  # noqa: RUF012 -- one instance

        def classify(
            self, windows: FloatArray, memory: FloatArray
        ) -> tuple[FloatArray, FloatArray]:
            self.names.add(threading.current_thread().name)
            return super().classify(windows, memory)

    detector = Nosy()
    async with running(Batcher(detector, threads=2)) as batcher:
        await asyncio.gather(
            *(batcher.classify(windows(20), fresh_memory(detector)) for _ in range(100))
        )
    assert detector.names <= {"vad.model_0", "vad.model_1"}


async def test_a_bug_in_the_model_ends_the_batcher() -> None:
    class Broken(EnergyDetector):
        def classify(
            self, windows: FloatArray, memory: FloatArray
        ) -> tuple[FloatArray, FloatArray]:
            raise ZeroDivisionError

    detector = Broken()
    batcher = Batcher(detector, threads=1)
    job = asyncio.ensure_future(batcher.classify(windows(1), fresh_memory(detector)))
    with pytest.raises(ExceptionGroup) as caught:
        await batcher.run()
    assert caught.group_contains(ZeroDivisionError)
    job.cancel()
