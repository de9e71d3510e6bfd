"""What each setting of the translator changes in what a client reads from a replica."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import grpc
import grpc.aio
import pytest

from services.common.batching import Batcher
from services.common.errors import DeviceError, InvalidRequestError
from services.common.models import ModelError
from services.translator import __main__ as translator
from services.translator.config import Settings
from services.translator.engines.choice import load_engine
from services.translator.languages import resolve
from services.translator.translator import Job, Pair, Translation
from tests.settings.flips import Flip, flips, load
from tests.settings.serving import begin_to_stop, serving, until
from tests.translator import toy
from tests.translator.chat_server import endpoint
from tests.translator.harness import (
    FINISH,
    Halves,
    Shouting,
    converse,
    opening,
    read,
    read_rest,
    source,
)
from voxmesh.translator.v1 import translator_pb2_grpc as rpc

SERVICE = "voxmesh.translator.v1.TranslatorService"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Shouting:
    """What every replica of the test has for a model."""
    made = Shouting()
    monkeypatch.setattr(translator, "load_engine", lambda chosen: (made, chosen.workers or 1))
    return made


@asynccontextmanager
async def replica(chosen: Settings) -> AsyncIterator[rpc.TranslatorServiceStub]:
    async with serving(translator.main(chosen), chosen.address, SERVICE) as channel:
        yield rpc.TranslatorServiceStub(channel)


def settings(monkeypatch: pytest.MonkeyPatch, folder: Path, **chosen: object) -> Settings:
    chosen = {"address": f"unix:{folder}/translator.sock", **chosen}
    return load(Settings, monkeypatch, **chosen)


@flips(
    "TRANSLATOR",
    policy={"local-agreement": 2, "align-att": 6, "wait-k": 3, "sentence": 0},
    agreement_words={6: 2, 3: 5},
    held_back={2: 2, 7: 1},
    attention_margin={2: 6, 5: 3},
    wait_words={5: 3, 2: 6},
)
async def test_how_soon_text_is_certain_is_a_matter_of_settings(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Shouting
) -> None:
    """Of a sentence that goes on, eight words of which were said one by one: words translated."""
    policies = {"attention_margin": "align-att", "wait_words": "wait-k"}
    chosen = {"policy": policies.get(flip.name, "local-agreement")} | {flip.name: flip.value}
    async with replica(settings(monkeypatch, tmp_path, **chosen)) as stub:
        call = stub.Translate()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        for number in range(8):
            asked = len(engine.jobs)
            await call.write(source("word", number))
            if flip.value != "sentence":
                await until(partial(was_asked, engine, asked))
        await call.write(source("END.", 8))
        await call.write(FINISH)
        texts = [one.commit.text for one in await read_rest(call) if one.HasField("commit")]
    assert len("".join(texts[:-1]).split()) == flip.effect


def was_asked(engine: Shouting, before: int) -> bool:
    return len(engine.jobs) > before


@flips("TRANSLATOR", model={"firefox-en-pt": "", "empty": "it has neither a model.bin"})
def test_the_model_is_what_is_loaded(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    failure = ""
    try:
        load_engine(settings(monkeypatch, tmp_path, model=flip.value))
    except ModelError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


@flips(
    "TRANSLATOR",
    device={"cpu": "", "cuda": "cannot be loaded on cuda"},
    compute_type={"float32": "", "float16": "float16"},
)
def test_nllb_runs_where_and_with_what_it_is_told_or_not_at_all(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = str(toy.convert(toy.save(tmp_path)))
    failure = ""
    try:
        load_engine(settings(monkeypatch, tmp_path, model=model, **{flip.name: flip.value}))
    except DeviceError as error:
        failure = str(error)
    assert flip.effect in failure
    assert bool(failure) is bool(flip.effect)


@flips("TRANSLATOR", nllb_library={"auto": "nllb-toy", "nllw": "nllw-toy"})
def test_nllb_is_run_by_the_library_that_is_named(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, model=str(toy.save(tmp_path)), nllb_library=flip.value)
    engine, _ = load_engine(chosen)
    assert engine.name == flip.effect


@flips("TRANSLATOR", pivot={False: "TRANSLATOR_PIVOT would translate it", True: ""})
def test_pairs_are_translated_through_english_only_when_that_is_asked_for(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("services.translator.engines.firefox.Firefox", Halves)
    engine, _ = load_engine(settings(monkeypatch, tmp_path, pivot=flip.value))
    refusal = ""
    try:
        engine.check(Pair(resolve("de"), resolve("pt")))
    except InvalidRequestError as error:
        refusal = str(error)
    assert flip.effect in refusal
    assert bool(refusal) is bool(flip.effect)


@flips("TRANSLATOR", chat_url={"": "firefox-en-pt", "there": "chat-some-model"})
def test_a_language_model_is_asked_where_its_api_is_named(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = {"model": "some-model"} if flip.value else {}
    engine, _ = load_engine(settings(monkeypatch, tmp_path, chat_url=flip.value, **model))
    assert engine.name == flip.effect


@flips("TRANSLATOR", chat_key={"": "", "secret": "Bearer secret"})
def test_the_key_is_what_the_api_is_told(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with endpoint() as served:
        chosen = settings(
            monkeypatch, tmp_path, chat_url=served.url, model="some-model", chat_key=flip.value
        )
        assert "secret" not in repr(chosen)
        load_engine(chosen)[0].translate([Job(Shouting.example, "hi")])
    assert served.keys == [flip.effect]


@flips("TRANSLATOR", chat_timeout_s={0.2: False, 5.0: True})
def test_the_api_may_keep_silent_for_so_long(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with endpoint() as served:
        served.silent.set()
        chosen = settings(
            monkeypatch,
            tmp_path,
            chat_url=served.url,
            model="some-model",
            chat_timeout_s=flip.value,
        )
        # It answers after a second.
        Timer(1, served.closing.set).start()
        answered = True
        try:
            load_engine(chosen)[0].translate([Job(Shouting.example, "hi")])
        except DeviceError:
            answered = False
    assert answered is flip.effect


@pytest.mark.parametrize(
    ("chosen", "says"),
    [({}, "needs TRANSLATOR_MODEL"), ({"policy": "align-att"}, "tells no attention")],
)
def test_a_language_model_needs_a_name_and_tells_no_attention(
    chosen: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says):
        load_engine(settings(monkeypatch, tmp_path, chat_url="http://127.0.0.1:9/v1", **chosen))


@pytest.mark.parametrize("chosen", [{"device": "cuda"}, {"policy": "align-att"}])
def test_the_small_models_refuse_what_they_cannot_do(
    chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="runs on CPUs alone"):
        load_engine(settings(monkeypatch, tmp_path, **chosen))


@pytest.mark.usefixtures("engine")
@flips("TRANSLATOR", address={"one": ["one"], "other": ["other"]})
async def test_the_address_is_where_the_replica_is_reached(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, address=f"unix:{tmp_path / flip.value}")
    async with replica(chosen) as stub:
        assert (await converse(stub, [opening(), FINISH]))[-1].HasField("finished")
        assert os.listdir(tmp_path) == flip.effect


@pytest.mark.usefixtures("engine")
@flips("TRANSLATOR", max_streams={1: grpc.StatusCode.RESOURCE_EXHAUSTED, 2: grpc.StatusCode.OK})
async def test_one_stream_more_than_allowed_is_refused(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with replica(settings(monkeypatch, tmp_path, max_streams=flip.value)) as stub:
        first = stub.Translate()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = stub.Translate()
        await second.write(opening())
        with suppress(grpc.aio.AioRpcError):
            await second.read()
            await second.write(FINISH)
            await read_rest(second)
        assert await second.code() is flip.effect


@flips("TRANSLATOR", workers={1: 1, 2: 2}, max_batch={1: [1, 1, 1, 1], 8: [1, 3]})
async def test_so_many_batches_of_so_many_texts_run_at_once(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Shouting
) -> None:
    """Streams ask, one after the other, while the model hangs."""
    batchers: list[Batcher[Job, Translation]] = []
    batches: list[int] = []
    translate = engine.translate

    def counted(jobs: list[Job]) -> list[Translation]:
        batches.append(len(jobs))
        return translate(jobs)

    def make(*args: Any, **how: Any) -> Batcher[Job, Translation]:
        batchers.append(Batcher(*args, **how))
        return batchers[-1]

    monkeypatch.setattr(engine, "translate", counted)
    monkeypatch.setattr(translator, "Batcher", make)
    alone = {"workers": 1} | {flip.name: flip.value}
    async with replica(settings(monkeypatch, tmp_path, **alone)) as stub:
        [batcher] = batchers
        calls = [stub.Translate() for _ in range(4)]
        for call in calls:
            await call.write(opening())
            assert (await read(call)).HasField("opened")
        batches.clear()
        engine.gate.clear()
        try:
            for asked, call in enumerate(calls, 1):
                await call.write(source("end."))
                await until(partial(asks, batcher, batches, asked))
                await asyncio.sleep(0.1)  # for every worker that is free to start
            running = len(batches)
        finally:
            engine.gate.set()
        for call in calls:
            assert (await read(call)).HasField("commit")
    assert {"workers": running, "max_batch": batches}[flip.name] == flip.effect


def asks(batcher: Batcher[Job, Translation], batches: list[int], asked: int) -> bool:
    """Whether so many texts wait for the model, or are in it."""
    return sum(batches) + len(batcher._waiting) == asked


@pytest.mark.usefixtures("engine")
@flips("TRANSLATOR", drain_s={0: False, 20: True})
async def test_a_stopping_replica_lets_streams_finish_for_as_long_as_it_drains(
    flip: Flip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chosen = settings(monkeypatch, tmp_path, drain_s=flip.value)
    async with serving(translator.main(chosen), chosen.address, SERVICE) as channel:
        call = rpc.TranslatorServiceStub(channel).Translate()
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
