import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from services.asr.recognizer import Hypothesis, Window
from services.asr.scheduler import Scheduler
from services.common.errors import DeviceError
from services.common.timeline import samples
from tests.asr.harness import POISON, ScriptedRecognizer


def window(seconds: float, *, first_sample: int = 0, level: int = 0) -> Window:
    return Window(np.full(samples(seconds), level / 32768, np.float32), first_sample)


@asynccontextmanager
async def running(
    model: ScriptedRecognizer, *, workers: int = 1, max_batch: int = 16
) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(model, workers=workers, max_batch=max_batch)
    work = asyncio.create_task(scheduler.run(), name="scheduler")
    try:
        yield scheduler
    finally:
        model.gate.set()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


@asynccontextmanager
async def busy(
    model: ScriptedRecognizer, *, max_batch: int = 16
) -> AsyncIterator[tuple[Scheduler, "asyncio.Future[Hypothesis]"]]:
    """The one worker is held up by a window of 30 s until the gate opens."""
    model.gate.clear()
    async with running(model, max_batch=max_batch) as scheduler:
        holding = ask(scheduler, window(30))
        for _ in range(1000):
            await asyncio.sleep(0.001)
            if model.batches:
                break
        yield scheduler, holding


def ask(
    scheduler: Scheduler, wanted: Window, *, live: bool = True, within_s: float = 1.0
) -> "asyncio.Future[Hypothesis]":
    return asyncio.ensure_future(scheduler.recognize(wanted, live=live, within_s=within_s))


async def queued() -> None:
    """Let what was asked for reach the queue."""
    for _ in range(5):
        await asyncio.sleep(0)


def lengths(model: ScriptedRecognizer) -> list[list[float]]:
    return [[len(w.samples) / 16_000 for w in batch] for batch in model.batches]


async def test_only_windows_of_one_bucket_share_a_batch() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        sizes = [3, 5, 2.5, 5, 3, 4.9]
        jobs = [ask(scheduler, window(size), within_s=n) for n, size in enumerate(sizes)]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [3, 2.5, 3], [5, 5, 4.9]]


async def test_each_stream_gets_what_its_own_window_says() -> None:
    model = ScriptedRecognizer([])
    model.amiss = lambda window, heard: Hypothesis(
        heard.words, "en", 1.0, window.first_sample, heard.avg_log_probability
    )
    async with busy(model) as (scheduler, holding):
        jobs = [ask(scheduler, window(3, first_sample=n)) for n in range(10)]
        await queued()
        model.gate.set()
        heard = await asyncio.gather(*jobs)
        await holding
    assert [h.no_speech_probability for h in heard] == list(range(10))
    assert len(model.batches) == 2


async def test_the_nearest_deadline_goes_first_and_takes_its_like_along() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [
            ask(scheduler, window(size), within_s=within)
            for size, within in ((2, 3.0), (3, 1.0), (4, 2.0), (2, 0.3), (3, 9.0))
        ]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [2, 2], [3, 3], [4]]


async def test_everything_live_goes_before_files() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [
            ask(scheduler, window(28), live=False, within_s=0.0),
            ask(scheduler, window(28), live=False, within_s=0.0),
            ask(scheduler, window(5), within_s=60.0),
            ask(scheduler, window(3), within_s=90.0),
        ]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [5], [3], [28, 28]]


async def test_no_batch_is_larger_than_it_may_be_and_the_urgent_come_first() -> None:
    model = ScriptedRecognizer([])
    async with busy(model, max_batch=4) as (scheduler, holding):
        jobs = [ask(scheduler, window(3, first_sample=n), within_s=10.0 - n) for n in range(10)]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    taken = [[w.first_sample for w in batch] for batch in model.batches[1:]]
    assert taken == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


async def test_a_bad_window_fails_alone() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [ask(scheduler, window(3, level=POISON if n == 2 else 0)) for n in range(5)]
        await queued()
        model.gate.set()
        heard = await asyncio.gather(holding, *jobs, return_exceptions=True)
        again = await scheduler.recognize(window(3), live=True, within_s=1)
    assert [type(h) for h in heard[1:]] == [
        *[Hypothesis] * 2,
        DeviceError,
        *[Hypothesis] * 2,
    ]
    assert isinstance(again, Hypothesis)


async def test_a_bug_in_the_model_is_its_streams_error_and_the_worker_goes_on() -> None:
    def broken(calls: int, _: Sequence[Window]) -> bool:
        if calls == 1:
            raise ZeroDivisionError
        return False

    model = ScriptedRecognizer([], fails=broken)
    async with running(model) as scheduler:
        with pytest.raises(ZeroDivisionError):
            await scheduler.recognize(window(3), live=True, within_s=1)
        await scheduler.recognize(window(3), live=True, within_s=1)


async def test_a_stream_that_leaves_while_it_waits_takes_nothing_along() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        stays = [ask(scheduler, window(3, first_sample=n)) for n in (1, 2)]
        leaves = [ask(scheduler, window(size, first_sample=99)) for size in (3, 7)]
        await queued()
        for job in leaves:
            job.cancel()
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *stays)
        await scheduler.recognize(window(7), live=True, within_s=1)
    assert [[w.first_sample for w in batch] for batch in model.batches] == [[0], [1, 2], [0]]


async def test_a_stream_that_leaves_while_it_is_decoded_takes_nothing_along() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        other = ask(scheduler, window(3))
        await queued()
        holding.cancel()
        await queued()
        model.gate.set()
        assert (await other).words == ()


async def test_one_greedy_stream_does_not_starve_the_others() -> None:
    model = ScriptedRecognizer([])
    async with running(model) as scheduler:
        turns = dict.fromkeys(("greedy", "a", "b", "c"), 0)

        async def stream(name: str, size: float, within_s: float) -> None:
            while True:
                await scheduler.recognize(window(size), live=True, within_s=within_s)
                turns[name] += 1

        tasks = [
            asyncio.create_task(stream("greedy", 9, 0.0)),
            *(asyncio.create_task(stream(name, 3, 0.02)) for name in "abc"),
        ]
        await asyncio.sleep(0.5)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert min(turns.values()) > 5


async def test_workers_decode_at_once() -> None:
    model = ScriptedRecognizer([])
    model.gate.clear()
    async with running(model, workers=2) as scheduler:
        jobs = [ask(scheduler, window(size)) for size in (3, 5, 7)]
        for _ in range(200):
            await asyncio.sleep(0.005)
            if len(model.batches) == 2:
                break
        assert len(model.batches) == 2
        model.gate.set()
        await asyncio.gather(*jobs)
    assert len(model.batches) == 3


async def test_it_says_how_long_ago_the_model_answered() -> None:
    model = ScriptedRecognizer([], fails=lambda calls, _: calls == 2)
    async with running(model) as scheduler:
        assert scheduler.idle_s == float("inf")
        await scheduler.recognize(window(3), live=True, within_s=1)
        assert scheduler.idle_s < 5
        await asyncio.sleep(0.05)
        before = scheduler.idle_s
        with pytest.raises(DeviceError):
            await scheduler.recognize(window(3), live=True, within_s=1)
        assert scheduler.idle_s > before, "a failure is no answer"
