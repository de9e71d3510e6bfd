"""What each setting of the diarizer changes in what a client hears from a replica."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
import torch

from services.common.errors import DeviceError
from services.common.models import ModelError
from services.common.timeline import samples
from services.diarizer import __main__ as diarizer
from services.diarizer.batcher import Batcher
from services.diarizer.config import Settings
from services.diarizer.engines.choice import load_engine
from services.diarizer.engines.nemotron import NemotronCache
from services.diarizer.engines.sortformer_memory import SortformerMemory
from tests.diarizer import toy
from tests.diarizer.conftest import decoded
from tests.diarizer.harness import (
    FINISH,
    LevelDiarizer,
    audio,
    converse,
    cut,
    found,
    gap,
    opening,
    read,
    read_rest,
    tone,
)
from tests.settings.flips import Flip, flips, load
from tests.settings.serving import begin_to_stop, serving, until
from voxmesh.diarizer.v1 import diarizer_pb2_grpc as rpc

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "voxmesh.diarizer.v1.DiarizerService"
STEP = LevelDiarizer.step_samples


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> LevelDiarizer:
    """What every replica of the test has for a model."""
    made = LevelDiarizer()
    monkeypatch.setattr(diarizer, "load_engine", lambda chosen: (made, chosen.workers or 1))
    return made


@asynccontextmanager
async def replica(chosen: Settings) -> AsyncIterator[rpc.DiarizerServiceStub]:
    async with serving(diarizer.main(chosen), chosen.address, SERVICE) as channel:
        yield rpc.DiarizerServiceStub(channel)


def settings(monkeypatch: pytest.MonkeyPatch, folder: Path, **chosen: object) -> Settings:
    chosen = {"address": f"unix:{folder}/diarizer.sock", **chosen}
    return load(Settings, monkeypatch, **chosen)


@flips(
    "DIARIZER",
    active_threshold={0.4: [2, 5.0], 0.95: [2, 3.0]},
    same_threshold={0.3: [2, 5.0], 0.0: [1, 5.0]},
    new_speaker_ms={1200: [2, 5.0], 5000: [1, 5.0]},
)
async def test_who_is_heard_and_who_is_somebody_new_is_a_matter_of_settings(
    flip: Flip,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    speech: Path,
    models: "Callable[[str], Path]",
) -> None:
    """Two people, two and a half seconds each: how many speakers, and how many seconds of them."""
    one = decoded(speech / "two_cities.wav")[samples(2) : samples(4.5)]
    other = decoded(speech / "sample.wav")[samples(22.5) : samples(25)]
    first, second = ((heard * 32767).astype("<i2").tobytes() for heard in (one, other))
    begin = len(one) + samples(10)
    messages = [
        opening(),
        *cut(first, 8000),
        gap(len(one), samples(10)),
        *cut(second, 8000, begin),
        FINISH,
    ]
    model = str(models("diarizer-online"))
    chosen = settings(monkeypatch, tmp_path, model=model, **{flip.name: flip.value})
    async with replica(chosen) as stub:
        spans = found(await converse(stub, messages))
    said = sum(end - start for _, start, end in spans)
    assert [len({speaker for speaker, *_ in spans}), round(said / 16_000 * 2) / 2] == flip.effect


@flips("DIARIZER", model={"whole": "", "other": "the weights are not CAM++'s"})
async def test_the_model_is_what_is_loaded(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: "Callable[[str], Path]"
) -> None:
    installed = models("diarizer-online")
    (tmp_path / "whole").symlink_to(installed)
    (tmp_path / "other").mkdir()
    for name in ("segmentation.bin", "campplus.pt"):
        (tmp_path / "other" / name).symlink_to(installed / "segmentation.bin")
    chosen = settings(monkeypatch, tmp_path, model=str(tmp_path / flip.value))
    failure = ""
    try:
        async with replica(chosen) as stub:
            assert (await converse(stub, [opening(), FINISH]))[-1].HasField("finished")
    except ModelError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


@flips("DIARIZER", device={"cpu": "", "cuda": "cannot be loaded on cuda"})
def test_a_sortformer_runs_where_it_is_told_to_or_nowhere(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(
        monkeypatch, tmp_path, model=str(toy.save(tmp_path / "toy")), device=flip.value
    )
    failure = ""
    try:
        load_engine(chosen)
    except DeviceError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


@flips("DIARIZER", compute_type={"float32": torch.float32, "bfloat16": torch.bfloat16})
def test_a_sortformer_computes_with_the_numbers_chosen(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = str(toy.save(tmp_path / "toy"))
    diarizer, _ = load_engine(settings(monkeypatch, tmp_path, model=model, compute_type=flip.value))
    memory = diarizer.start(())
    assert isinstance(memory, SortformerMemory)
    assert isinstance(memory.cache, NemotronCache)
    assert memory.cache.fifo.dtype is flip.effect


@pytest.mark.usefixtures("engine")
@flips("DIARIZER", address={"one": ["one"], "other": ["other"]})
async def test_the_address_is_where_the_replica_is_reached(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, address=f"unix:{tmp_path / flip.value}")
    async with replica(chosen) as stub:
        assert (await converse(stub, [opening(), FINISH]))[-1].HasField("finished")
        assert os.listdir(tmp_path) == flip.effect


@pytest.mark.usefixtures("engine")
@flips("DIARIZER", max_streams={1: grpc.StatusCode.RESOURCE_EXHAUSTED, 2: grpc.StatusCode.OK})
async def test_one_stream_more_than_allowed_is_refused(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with replica(settings(monkeypatch, tmp_path, max_streams=flip.value)) as stub:
        first = stub.Diarize()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = stub.Diarize()
        await second.write(opening())
        with suppress(grpc.aio.AioRpcError):
            await second.read()
            await second.write(FINISH)
            await read_rest(second)
        assert await second.code() is flip.effect


@pytest.mark.usefixtures("engine")
@flips("DIARIZER", latency_ms={1000: 16_000, 200: 3200}, max_speakers={20: 4, 2: 2})
async def test_a_stream_that_asks_for_nothing_gets_what_is_set(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard = tone(*[(level, 10 * STEP) for level in (1, 2, 3, 4)])
    async with replica(settings(monkeypatch, tmp_path, **{flip.name: flip.value})) as stub:
        responses = await converse(stub, [opening(), *cut(heard, STEP), FINISH])
    last = responses[-3].turns
    observed = {
        "latency_ms": last.through_sample - last.settled_sample,
        "max_speakers": len({speaker for speaker, *_ in found(responses)}),
    }
    assert observed[flip.name] == flip.effect


@pytest.fixture
def batchers(monkeypatch: pytest.MonkeyPatch) -> list[Batcher]:
    """Those of the replicas of the test."""
    made: list[Batcher] = []

    def make(*args: Any, **how: Any) -> Batcher:
        made.append(Batcher(*args, **how))
        return made[-1]

    monkeypatch.setattr(diarizer, "Batcher", make)
    return made


def hang(batcher: Batcher, engine: LevelDiarizer, asked: int) -> bool:
    """Whether so many steps wait for the model, or in it."""
    return engine.running + len(batcher._waiting) == asked


@flips("DIARIZER", workers={1: [1, 1], 2: [1, 2]}, max_batch={1: [1, 1, 1, 1], 8: [1, 3]})
async def test_so_many_batches_of_so_many_steps_run_at_once(
    flip: Flip,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    engine: LevelDiarizer,
    batchers: list[Batcher],
) -> None:
    """Streams ask for a step, one after the other, while the model hangs."""
    alone = {"workers": 1} | {flip.name: flip.value}
    async with replica(settings(monkeypatch, tmp_path, **alone)) as stub:
        [batcher] = batchers
        calls = [stub.Diarize() for _ in range(4 if flip.name == "max_batch" else 2)]
        for call in calls:
            await call.write(opening())
            assert (await read(call)).HasField("opened")
        engine.batches.clear()
        engine.gate.clear()
        running: list[int] = []
        try:
            for asked, call in enumerate(calls, 1):
                await call.write(audio(0, tone((1, STEP))))
                await until(partial(hang, batcher, engine, asked))
                await asyncio.sleep(0.1)  # for every worker that is free to start
                running.append(engine.running)
        finally:
            engine.gate.set()
        for call in calls:
            assert (await read(call)).HasField("turns")
    batches = [len(batch) for batch in engine.batches]
    assert {"workers": running, "max_batch": batches}[flip.name] == flip.effect


@pytest.mark.usefixtures("engine")
@flips("DIARIZER", drain_s={0: False, 20: True})
async def test_a_stopping_replica_lets_streams_finish_for_as_long_as_it_drains(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, drain_s=flip.value)
    async with serving(diarizer.main(chosen), chosen.address, SERVICE) as channel:
        call = rpc.DiarizerServiceStub(channel).Diarize()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        await begin_to_stop(channel)
        rest = asyncio.create_task(read_rest(call))
        await asyncio.wait({rest}, timeout=0.3 if flip.effect else 10)
        assert rest.done() is not flip.effect
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(FINISH)
        with suppress(grpc.aio.AioRpcError):
            farewell, *_ = await rest
            assert farewell.go_away.deadline.seconds == flip.value
        assert (await call.code() is grpc.StatusCode.OK) is flip.effect
