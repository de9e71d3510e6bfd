"""P28: each metric of the recogniser, where its value is known."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.asr.recognizer import Hypothesis, Window
from services.common.errors import DeviceError
from services.common.timeline import samples, seconds
from tests.asr.harness import POISON, ScriptedRecognizer, chatter, ending, spoken
from tests.asr.metrics import metric
from tests.asr.replica import (
    FINISH,
    Call,
    Replica,
    converse,
    heard,
    opening,
    read,
    read_until,
    refusal,
    serving,
)
from voxmesh.asr.v1 import asr_pb2 as pb

RUN_S = 0.3
WINDOW = Window(np.zeros(samples(3), np.float32), 0)


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gauges are set more often than usual, so that a test need not wait for them."""
    monkeypatch.setattr("services.asr.scheduler._ADAPT_EVERY_S", 0.02)


@contextmanager
def grows(name: str, by: object, **labels: str) -> Iterator[None]:
    before = metric(name, **labels)
    yield
    assert metric(name, **labels) - before == by, name


def about(expected_s: float) -> object:
    """What takes time takes no less, and on a busy machine more."""
    return pytest.approx(expected_s * 1.25, rel=0.25)


async def shows(name: str, value: object) -> None:
    """A gauge of the stage comes to a value."""
    for _ in range(500):
        if metric(name, stage="asr") == value:
            break
        await asyncio.sleep(0.01)
    assert metric(name, stage="asr") == value, name


def sleeps(_calls: int, _windows: Sequence[Window]) -> bool:
    time.sleep(RUN_S)
    return False


async def begin(replica: Replica) -> Call:
    call = replica.stub.Transcribe()
    await call.write(opening(config=pb.TranscribeConfig(language_code="en")))
    assert (await read(call)).HasField("opened")
    return call


async def test_streams_and_why_others_are_refused(tmp_path: Path) -> None:
    model = ScriptedRecognizer([], fails=sleeps)
    async with serving(model, tmp_path, max_streams=2, steps_s=(0.5, 0.5)) as replica:
        first, second = await begin(replica), await begin(replica)
        await shows("streams", 2)
        with grows("streams_refused_total", 1, stage="asr", reason="overloaded"):
            await refusal(replica.stub, [opening()])
        second.cancel()
        await shows("streams", 1)
        await first.write(heard(0, spoken([], samples(0.5))))
        await read_until(first, "tail")
        with grows("streams_refused_total", 1, stage="asr", reason="saturated"):
            await refusal(replica.stub, [opening()])
        await first.write(FINISH)
        await shows("streams", 0)


async def test_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    said = chatter(15)
    audio = spoken(said, ending(said))
    async with serving(ScriptedRecognizer(said), tmp_path) as replica:
        with (
            grows("audio_seconds_total", pytest.approx(seconds(len(audio))), stage="asr"),
            grows("words_committed_total", len(said)),
        ):
            await converse(replica.stub, [opening(), heard(0, audio), FINISH])


def looping(_window: Window, hypothesis: Hypothesis) -> Hypothesis:
    return replace(hypothesis, words=hypothesis.words[:1] * 30)


async def test_guards(tmp_path: Path) -> None:
    said = chatter(20)
    model = ScriptedRecognizer(said, amiss=looping)
    async with serving(model, tmp_path) as replica:
        before = metric("guards_fired_total", guard="repetition")
        await converse(replica.stub, [opening(), heard(0, spoken(said, samples(8))), FINISH])
    fired = metric("guards_fired_total", guard="repetition") - before
    assert fired == len(model.batches) > 1, "none of them was believed"


async def test_runs_of_the_model(tmp_path: Path) -> None:
    model = ScriptedRecognizer([], fails=sleeps)
    async with serving(model, tmp_path) as replica:
        scheduler = replica.scheduler

        async def ask(window: Window = WINDOW) -> None:
            with scheduler.seat(live=True) as seat:
                await scheduler.recognize(window, seat)

        with (
            grows("step_seconds_count", 2, stage="asr"),
            grows("step_seconds_sum", about(2 * RUN_S), stage="asr"),
            grows("model_seconds_total", about(2 * RUN_S), stage="asr"),
            grows("batch_streams_count", 2, stage="asr"),
            grows("batch_streams_sum", 4, stage="asr"),
            grows("step_wait_seconds_count", 4, stage="asr"),
            grows("step_wait_seconds_sum", about(3 * RUN_S), stage="asr"),
            grows("model_errors_total", 0, stage="asr"),
        ):
            model.gate.clear()
            first = asyncio.create_task(ask(), name="first")
            await shows_audio(model, 1)
            others = [asyncio.create_task(ask(), name="other") for _ in range(3)]
            await asyncio.sleep(0)  # Now they wait, and the first run begins to sleep.
            model.gate.set()
            await asyncio.gather(first, *others)
        with grows("model_errors_total", 1, stage="asr"), pytest.raises(DeviceError):
            await ask(replace(WINDOW, samples=WINDOW.samples + np.float32(POISON / 32768)))


async def test_how_far_a_stream_is_behind(tmp_path: Path) -> None:
    def holds_the_next(_calls: int, _windows: Sequence[Window]) -> bool:
        model.gate.clear()
        return False

    model = ScriptedRecognizer([], fails=holds_the_next)
    async with serving(model, tmp_path) as replica:
        call = await begin(replica)
        model.gate.clear()
        with (
            grows("stream_lag_seconds_count", 1, stage="asr"),
            grows("stream_lag_seconds_sum", 3.5, stage="asr"),
        ):
            await call.write(heard(0, spoken([], samples(1))))
            await shows_audio(model, 1)
            heard_before = metric("audio_seconds_total", stage="asr")
            await call.write(heard(samples(1), spoken([], samples(2.5))))
            await shows("audio_seconds_total", heard_before + 2.5)
            model.gate.set()
            await read_until(call, "tail")
        model.fails = lambda _calls, _windows: False
        model.gate.set()
        await call.write(FINISH)


async def shows_audio(model: ScriptedRecognizer, num_batches: int) -> None:
    for _ in range(500):
        if len(model.batches) >= num_batches:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def test_how_busy_the_workers_are_and_what_that_leaves_room_for(tmp_path: Path) -> None:
    model = ScriptedRecognizer([], fails=sleeps)
    async with serving(model, tmp_path, steps_s=(0.1, 2.0)) as replica:
        await shows("utilisation_ratio", 0)
        await shows("cadence_seconds", 0.1)
        await shows("capacity_streams", 100)
        await shows("speaking_streams", 0)
        call = await begin(replica)
        await shows("speaking_streams", 1)
        await call.write(heard(0, spoken([], samples(5))))
        await read_until(call, "tail")
        await shows("cadence_seconds", about(RUN_S / 0.8))
        assert metric("capacity_streams", stage="asr") in {4, 5}, "2 s x 0.8 / 0.3 s"
        model.gate.clear()
        await call.write(heard(samples(5), spoken([], samples(1))))
        await shows("utilisation_ratio", pytest.approx(0.9, abs=0.1))
        model.gate.set()
        await call.write(FINISH)
        await read_until(call, "finished")
        await shows("speaking_streams", 0)
        await shows("utilisation_ratio", pytest.approx(0.3, abs=0.1))
