"""Whole streams over a Unix socket, against a replica in this process."""

import asyncio
import re
from pathlib import Path

import grpc
import pytest

from services.translator.inbox import Inbox
from tests.translator.harness import (
    DRAIN_S,
    FINISH,
    POISON,
    WORD,
    Shouting,
    converse,
    flush,
    opening,
    read,
    read_rest,
    refusal,
    serving,
    source,
)
from voxmesh.common.v1 import stage_pb2
from voxmesh.translator.v1 import translator_pb2 as pb


def kinds(responses: list[pb.TranslateResponse]) -> list[str | None]:
    return [response.WhichOneof("event") for response in responses]


def committed(responses: list[pb.TranslateResponse]) -> str:
    return "".join(response.commit.text for response in responses)


async def test_words_come_out_as_the_contract_shows(tmp_path: Path) -> None:
    said = re.findall(r"\S+", "It was the best of times. It was the worst of times. It was")
    messages = [source(word, n) for n, word in enumerate(said)]
    messages.insert(9, flush(8))
    async with serving(Shouting(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *messages, FINISH])
        places = [n for n, kind in enumerate(kinds(responses)) if kind == "commit"]
        assert len(places) > 3
        for place in places:
            checkpoint = responses[place].commit.checkpoint
            behind = checkpoint.through_sample // WORD
            rest = [source(word, n) for n, word in enumerate(said[behind:], behind)]
            resumed = await converse(replica.stub, [opening(checkpoint=checkpoint), *rest, FINISH])
            assert committed(resumed).upper().replace("~", "") == committed(
                responses[place + 1 :]
            ).upper().replace("~", "")


async def test_a_flush_is_answered_when_everything_is_translated(tmp_path: Path) -> None:
    messages = [opening(), flush(1), source("one two"), flush(2), FINISH]
    async with serving(Shouting(), tmp_path) as replica:
        responses = await converse(replica.stub, messages)
    assert [one.flushed.flush_id for one in responses if one.HasField("flushed")] == [1, 2]
    before = responses[: kinds(responses).index("flushed", 2)]
    assert committed(before) == " ONE two~"


@pytest.mark.parametrize("busy", [False, True])
async def test_guesses_are_translated_when_nothing_newer_waits(
    busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inbox, "waits", lambda _inbox: busy)
    engine = Shouting()
    async with serving(engine, tmp_path) as replica:
        said = [opening(), source("one two", tail="three"), FINISH]
        assert committed(await converse(replica.stub, said)) == " ONE two~"
    assert ("one two three" in [job.text for job in engine.jobs]) is not busy


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([source("a")], "the first message must be open"),
        ([opening(), opening()], "open comes once"),
        ([opening(), pb.TranslateRequest()], "holds nothing that this replica knows"),
        ([opening("", "pt")], "open.source_language_code is missing"),
        ([opening("en", "")], "open.target_language_code is missing"),
        ([opening("en", "xx")], "no language is called 'xx'"),
        ([opening("en", "English")], "English is not translated into itself"),
        ([opening("en", "la")], "no language is called 'la'"),
        ([opening(), source("a", 5), source("b", 1)], "is known"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    messages: list[pb.TranslateRequest], says: str, tmp_path: Path
) -> None:
    async with serving(Shouting(), tmp_path) as replica:
        code, details = await refusal(replica.stub, messages)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in details


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (stage_pb2.Checkpoint(format="other/1"), "this replica reads 'shouting/2'"),
        (stage_pb2.Checkpoint(format="shouting/2", state=b"{}"), "the checkpoint is damaged"),
    ],
)
async def test_a_checkpoint_of_another_engine_or_a_damaged_one_is_refused(
    checkpoint: stage_pb2.Checkpoint, says: str, tmp_path: Path
) -> None:
    async with serving(Shouting(), tmp_path) as replica:
        code, details = await refusal(replica.stub, [opening(checkpoint=checkpoint)])
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert says in details


async def test_a_text_that_breaks_the_model_ends_its_stream_alone(tmp_path: Path) -> None:
    async with serving(Shouting(), tmp_path) as replica:
        code, details = await refusal(replica.stub, [opening(), source(POISON)])
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "a bad text" in details
        assert committed(await converse(replica.stub, [opening(), source("a."), FINISH])) == " A."


async def test_one_stream_too_many_is_refused(tmp_path: Path) -> None:
    async with serving(Shouting(), tmp_path, max_streams=1) as replica:
        first = replica.stub.Translate()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        code, _ = await refusal(replica.stub, [opening()])
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.cancel()


async def test_a_stopping_replica_says_so_and_lets_streams_finish(tmp_path: Path) -> None:
    async with serving(Shouting(), tmp_path) as replica:
        call = replica.stub.Translate()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        replica.stopping.set()
        farewell = await read(call)
        assert farewell.go_away.deadline.seconds == DRAIN_S
        await call.write(source("still here."))
        await call.write(FINISH)
        assert committed(await read_rest(call)) == " STILL HERE."
        code, _ = await refusal(replica.stub, [opening()])
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_leaves_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(Shouting(), tmp_path) as replica:
        call = replica.stub.Translate()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        before = len(asyncio.all_tasks())
        call.cancel()
        for _ in range(200):
            await asyncio.sleep(0.01)
            if len(asyncio.all_tasks()) < before:
                break
        assert len(asyncio.all_tasks()) < before
