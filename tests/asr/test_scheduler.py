import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress

import numpy as np
import pytest

from services.asr.load import Limits
from services.asr.recognizer import Hypothesis, Window
from services.asr.scheduler import Scheduler
from services.asr.turns import Seat, Turn
from services.common.errors import DeviceError, SaturatedError
from services.common.timeline import SAMPLE_RATE_HZ, samples
from tests.asr.harness import POISON, ScriptedRecognizer
from tests.asr.metrics import metric


def window(seconds: float, *, first_sample: int = 0, level: int = 0) -> Window:
    return Window(np.full(samples(seconds), level / 32768, np.float32), first_sample)


@asynccontextmanager
async def running(
    model: ScriptedRecognizer,
    *,
    workers: int = 1,
    max_batch: int = 16,
    min_step_s: float = 0.5,
    max_step_s: float = 2.0,
) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(
        model,
        Limits(
            workers=workers,
            max_batch=max_batch,
            max_streams=100,
            min_step_s=min_step_s,
            max_step_s=max_step_s,
        ),
    )
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
    scheduler: Scheduler, wanted: Window, *, live: bool = True, final: bool = False
) -> "asyncio.Future[Hypothesis]":
    """A stream of its own asks for a decoding."""
    return asyncio.ensure_future(answer(scheduler, wanted, live=live, final=final))


async def answer(
    scheduler: Scheduler, wanted: Window, *, live: bool = True, final: bool = False
) -> Hypothesis:
    with scheduler.seat(live=live) as seat:
        return await scheduler.recognize(wanted, seat, final=final)


def takes(run_s: float) -> Callable[[int, Sequence[Window]], bool]:
    """A model that takes so long for each batch."""

    def slow(_calls: int, _windows: Sequence[Window]) -> bool:
        time.sleep(run_s)
        return False

    return slow


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
        jobs = [ask(scheduler, window(size)) for size in sizes]
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


async def test_who_asked_first_goes_first_and_takes_its_like_along() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [ask(scheduler, window(size)) for size in (2, 3, 4, 2, 3)]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [2, 2], [3, 3], [4]]


async def test_at_a_pause_a_stream_goes_before_those_that_go_on_speaking() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [ask(scheduler, window(3)), ask(scheduler, window(5), final=True)]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [5], [3]]


async def test_everything_live_goes_before_files() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [
            ask(scheduler, window(28), live=False),
            ask(scheduler, window(28), live=False),
            ask(scheduler, window(28)),
            ask(scheduler, window(3)),
        ]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    assert lengths(model) == [[30], [28], [3], [28, 28]], "nor do they share a batch"


async def test_files_that_take_long_go_one_by_one_while_somebody_speaks() -> None:
    model = ScriptedRecognizer([], fails=takes(0.6))
    async with running(model) as scheduler:
        await answer(scheduler, window(28), live=False)
        with scheduler.seat(live=True):
            await asyncio.gather(*(answer(scheduler, window(28), live=False) for _ in range(3)))
        await asyncio.gather(*(answer(scheduler, window(28), live=False) for _ in range(3)))
    assert [len(batch) for batch in model.batches] == [1, 1, 1, 1, 3]


async def test_no_batch_is_larger_than_it_may_be_and_the_urgent_come_first() -> None:
    model = ScriptedRecognizer([])
    async with busy(model, max_batch=4) as (scheduler, holding):
        jobs = [ask(scheduler, window(3, first_sample=n), final=n > 6) for n in range(10)]
        await queued()
        model.gate.set()
        await asyncio.gather(holding, *jobs)
    taken = [[w.first_sample for w in batch] for batch in model.batches[1:]]
    assert taken == [[7, 8, 9, 0], [1, 2, 3, 4], [5, 6]]


async def test_workers_that_have_nothing_to_do_share_what_there_is() -> None:
    model = ScriptedRecognizer([])
    async with running(model, workers=2) as scheduler:
        await queued()
        await asyncio.gather(*(ask(scheduler, window(3)) for _ in range(6)))
    assert sorted(len(batch) for batch in model.batches) == [3, 3]


async def test_a_bad_window_fails_alone() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        jobs = [ask(scheduler, window(3, level=POISON if n == 2 else 0)) for n in range(5)]
        await queued()
        model.gate.set()
        heard = await asyncio.gather(holding, *jobs, return_exceptions=True)
        again = await answer(scheduler, window(3))
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
            await answer(scheduler, window(3))
        await answer(scheduler, window(3))


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
        await answer(scheduler, window(7))
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


async def test_a_stream_that_floods_waits_until_the_others_are_served() -> None:
    model = ScriptedRecognizer([])
    async with running(model) as scheduler:
        with scheduler.seat(live=True) as greedy:
            for _ in range(20):
                await scheduler.recognize(window(24), greedy, final=True)
            model.gate.clear()
            holding = ask(scheduler, window(30))
            await queued()
            again = asyncio.ensure_future(scheduler.recognize(window(24), greedy, final=True))
            await queued()
            others = [ask(scheduler, window(size)) for size in (3, 5)]
            await queued()
            model.gate.set()
            await asyncio.gather(holding, again, *others)
    assert lengths(model)[20:] == [[30], [3], [5], [24]]


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
        await answer(scheduler, window(3))
        assert scheduler.idle_s < 5
        await asyncio.sleep(0.05)
        before = scheduler.idle_s
        with pytest.raises(DeviceError):
            await answer(scheduler, window(3))
        assert scheduler.idle_s > before, "a failure is no answer"


# --- what follows from what it costs


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is reconsidered more often than usual, so that a test need not wait for it."""
    monkeypatch.setattr("services.asr.scheduler._ADAPT_EVERY_S", 0.02)


async def adapted(scheduler: Scheduler) -> float:
    """The step, when it has been reconsidered, in seconds."""
    await asyncio.sleep(0.2)
    return scheduler.step_samples / SAMPLE_RATE_HZ


@pytest.mark.usefixtures("prompt")
async def test_steps_stretch_as_more_streams_speak_and_shrink_as_they_leave() -> None:
    async with running(ScriptedRecognizer([], fails=takes(0.2)), min_step_s=0.1) as scheduler:
        await answer(scheduler, window(3))
        with scheduler.seat(live=True):
            assert 0.25 <= await adapted(scheduler) < 0.35
            with scheduler.seat(live=True), scheduler.seat(live=True), scheduler.seat(live=False):
                assert 0.75 <= await adapted(scheduler) < 1.05, "files do not count"
        assert await adapted(scheduler) == pytest.approx(0.1)


@pytest.mark.usefixtures("prompt")
async def test_a_stream_that_only_listens_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.asr.turns._SPEAKING_S", 0.1)
    async with running(ScriptedRecognizer([], fails=takes(0.2)), min_step_s=0.1) as scheduler:
        await answer(scheduler, window(3))
        with scheduler.seat(live=True):
            assert await adapted(scheduler) == pytest.approx(0.1)


async def test_whom_there_is_no_room_for_is_refused_until_there_is() -> None:
    async with running(ScriptedRecognizer([], fails=takes(0.5)), max_step_s=1.6) as scheduler:
        await answer(scheduler, window(3))
        with scheduler.seat(live=True):
            with scheduler.seat(live=True), scheduler.seat(live=False):
                with pytest.raises(SaturatedError, match=r"decoded every (1\.9|2\.\d) s"):
                    await answer(scheduler, window(3))
                await answer(scheduler, window(3), live=False)
            await answer(scheduler, window(3))


async def test_a_stream_that_was_admitted_elsewhere_is_not_refused() -> None:
    """O2. Its session would be lost."""
    async with running(ScriptedRecognizer([], fails=takes(0.5)), max_step_s=0.5) as scheduler:
        await answer(scheduler, window(3))
        with scheduler.seat(live=True):
            with pytest.raises(SaturatedError), scheduler.seat(live=True):
                pass
            with scheduler.seat(live=True, moved=True):
                pass


async def test_whoever_comes_while_windows_wait_is_refused() -> None:
    """O1."""
    async with running(ScriptedRecognizer([], fails=takes(0.3)), max_step_s=2.5) as scheduler:
        with ExitStack() as seats:
            speaking = [seats.enter_context(scheduler.seat(live=True)) for _ in range(4)]
            for _ in range(3):
                windows = (scheduler.recognize(window(n), s) for n, s in enumerate(speaking, 1))
                await asyncio.gather(*windows)
            with pytest.raises(SaturatedError, match="waited"), scheduler.seat(live=True):
                pass


async def test_a_replica_on_which_nobody_speaks_takes_one_stream_and_learns() -> None:
    model = ScriptedRecognizer([], fails=takes(0.5))
    async with running(model, max_step_s=0.5) as scheduler:
        await answer(scheduler, window(3))
        with scheduler.seat(live=True) as first:
            with pytest.raises(SaturatedError), scheduler.seat(live=True):
                pass
            model.fails = takes(0)
            for _ in range(20):
                await scheduler.recognize(window(3), first)
            with scheduler.seat(live=True):
                pass


@pytest.mark.usefixtures("prompt")
async def test_a_probe_is_decoded_first_and_alone_and_says_nothing_about_the_cost() -> None:
    model = ScriptedRecognizer([])
    async with busy(model) as (scheduler, holding):
        other = ask(scheduler, window(3), final=True)
        probe = asyncio.ensure_future(scheduler.probe(window(2.9)))
        await queued()
        model.gate.set()
        await asyncio.gather(holding, other, probe)
    assert lengths(model) == [[30], [2.9], [3]]
    async with running(ScriptedRecognizer([], fails=takes(0.5))) as scheduler:
        await scheduler.probe(window(3))
        await adapted(scheduler)
        assert metric("capacity_streams", stage="asr") == 100
        await answer(scheduler, window(3))
        await adapted(scheduler)
        assert metric("capacity_streams", stage="asr") == 3


def kept() -> int:
    """How much there is of what a scheduler keeps of its streams."""
    gc.collect()
    return sum(issubclass(type(each), Seat | Turn) for each in gc.get_objects())


@pytest.mark.usefixtures("prompt")
async def test_a_hundred_streams_that_came_and_went_leave_nothing_behind() -> None:
    model, before = ScriptedRecognizer([]), kept()
    async with running(model) as scheduler:
        model.gate.clear()
        asked = [ask(scheduler, window(3), live=n % 2 == 0) for n in range(100)]
        await queued()
        assert kept() >= 200
        for job in asked[::3]:
            job.cancel()
        model.gate.set()
        await asyncio.gather(*asked, return_exceptions=True)
        del asked, job
        await answer(scheduler, window(3))
        await adapted(scheduler)
        assert kept() <= before + 1, "what a worker took last is in its hands until it takes again"
        assert metric("speaking_streams", stage="asr") == 0
