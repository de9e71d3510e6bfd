"""Whole streams over a Unix socket, against a replica in this process."""

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from services.common.audio import BYTES_PER_SAMPLE, FloatArray
from services.diarizer.diarizer import Diarizer
from tests.diarizer.harness import (
    DRAIN_S,
    FINISH,
    FRAME,
    LevelDiarizer,
    audio,
    converse,
    cut,
    flush,
    found,
    gap,
    opening,
    read,
    read_rest,
    refusal,
    serving,
    tone,
)
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb

STEP = LevelDiarizer.step_samples
TALK = tone((2, 10 * STEP), (0, 5 * STEP), (1, 10 * STEP), (2, 10 * STEP))
TURNS = [(1, 0, 10 * STEP), (2, 15 * STEP, 25 * STEP), (1, 25 * STEP, 35 * STEP)]
SECOND = tone((3, 16_000))


def streams_now() -> float:
    return REGISTRY.get_sample_value("voxmesh_streams", {"stage": "diarizer"}) or 0.0


async def settle() -> None:
    """Give tasks on both sides of the socket time to end."""
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not streams_now():
            return


def kinds(responses: list[pb.DiarizeResponse]) -> list[str | None]:
    return [response.WhichOneof("event") for response in responses]


async def test_two_people_who_take_turns_are_told_as_the_contract_shows(tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(TALK, 1600), FINISH])
    assert kinds(responses) == ["opened", *["turns"] * 36, "finished"]
    assert found(responses) == TURNS
    stretches = [response.turns for response in responses[1:-1]]
    assert [stretch.through_sample for stretch in stretches[:-1]] == [
        STEP * number for number in range(1, 36)
    ]
    assert stretches[-1].settled_sample == stretches[-1].through_sample == 35 * STEP


@pytest.mark.parametrize("size", [160_000, 1, 477, 3333])
async def test_results_do_not_depend_on_how_audio_is_cut(size: int, tmp_path: Path) -> None:
    talk = TALK[: 2 * 5000] if size == 1 else TALK
    async with serving(LevelDiarizer(), tmp_path) as replica:
        plain = await converse(replica.stub, [opening(), *cut(talk, 1600), FINISH])
        other = await converse(replica.stub, [opening(), *cut(talk, size), FINISH])
    assert other == plain


async def test_many_streams_at_once_hear_what_each_would_hear_alone(tmp_path: Path) -> None:
    parts = [TALK[2 * 997 * number :] for number in range(16)]
    async with serving(diarizer := LevelDiarizer(), tmp_path) as replica:
        together = await asyncio.gather(
            *(
                converse(replica.stub, [opening(), *cut(part, 700 + 97 * number), FINISH])
                for number, part in enumerate(parts)
            )
        )
        assert max(map(len, diarizer.batches)) > 1
        alone = [
            await converse(replica.stub, [opening(), *cut(part, 700 + 97 * number), FINISH])
            for number, part in enumerate(parts)
        ]
    assert together == alone


async def test_two_real_people_are_told_apart_over_the_wire(
    online: Diarizer, call: FloatArray, tmp_path: Path
) -> None:
    heard = (call[16_000 * 6 : 16_000 * 16] * 32767).astype("<i2").tobytes()
    async with serving(online, tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(heard, 1600), FINISH])
    assert {speaker for speaker, *_ in found(responses)} == {1, 2}


async def test_a_successor_goes_on_from_any_checkpoint(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    talk = tone(*[(int(numbers.integers(0, 4)), 5000) for _ in range(300)])
    async with serving(LevelDiarizer(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(talk, 16_000), FINISH])
        places = [n for n, kind in enumerate(kinds(responses)) if kind == "checkpoint"]
        assert len(places) > 3
        for place in places:
            checkpoint = responses[place].checkpoint
            assert checkpoint.format == "level/1"
            first = checkpoint.replay_from_sample
            resumed = await converse(
                replica.stub,
                [
                    opening(first, checkpoint=checkpoint),
                    *cut(talk[first * BYTES_PER_SAMPLE :], 9000, first),
                    FINISH,
                ],
            )
            assert resumed[1:] == responses[place + 1 :]


async def test_a_flush_is_answered_when_everything_is_decided(tmp_path: Path) -> None:
    messages = [opening(), *cut(TALK[:20_000], 999), flush(7), flush(8), FINISH]
    async with serving(LevelDiarizer(), tmp_path) as replica:
        responses = await converse(replica.stub, messages)
    assert kinds(responses)[-5:] == ["turns", "turns", "flushed", "flushed", "finished"]
    assert responses[-4].turns.settled_sample == 10_000
    assert [response.flushed.flush_id for response in responses[-3:-1]] == [7, 8]


async def test_a_flush_without_audio_is_answered(tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), flush(1), FINISH])
    assert kinds(responses) == ["opened", "flushed", "finished"]


@pytest.mark.parametrize("num_samples", [1, 5000, 31_999, 32_000, 10**12 + 7])
async def test_a_gap_of_any_length_keeps_positions_exact(num_samples: int, tmp_path: Path) -> None:
    before, after = tone((1, 4 * FRAME)), tone((2, 50 * FRAME))
    begin = 4 * FRAME + num_samples
    messages = [opening(), audio(0, before), gap(4 * FRAME, num_samples)]
    async with serving(LevelDiarizer(), tmp_path) as replica:
        responses = await converse(replica.stub, [*messages, *cut(after, 1000, begin), FINISH])
    assert found(responses) == [(1, 0, 4 * FRAME), (2, begin, begin + 50 * FRAME)]


@pytest.mark.parametrize(
    ("config", "turns"),
    [
        (pb.DiarizeConfig(), TURNS),
        (pb.DiarizeConfig(pace=pb.PACE_FILE), TURNS),
        (pb.DiarizeConfig(max_speakers=1), [TURNS[0], TURNS[2]]),
        (
            pb.DiarizeConfig(enrolled=[SECOND, tone((1, 16_000))]),
            [(3, 0, 10 * STEP), (2, 15 * STEP, 25 * STEP), (3, 25 * STEP, 35 * STEP)],
        ),
    ],
)
async def test_a_stream_says_what_it_knows_of_the_speakers(
    config: pb.DiarizeConfig, turns: list[tuple[int, int, int]], tmp_path: Path
) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        messages = [opening(config=config), *cut(TALK, 1600), FINISH]
        assert found(await converse(replica.stub, messages)) == turns


async def test_a_stream_may_say_how_long_a_turn_stays_undecided(tmp_path: Path) -> None:
    waits = []
    async with serving(LevelDiarizer(), tmp_path) as replica:
        for config in (None, pb.DiarizeConfig(max_latency=Duration(nanos=200_000_000))):
            responses = await converse(
                replica.stub, [opening(config=config), *cut(TALK, 1600), FINISH]
            )
            last = responses[-3].turns
            waits.append(last.through_sample - last.settled_sample)
    assert waits == [16_000, 3200]


GOOD = audio(0, tone((0, 600)))


def asking(**config: object) -> pb.DiarizeRequest:
    return opening(config=pb.DiarizeConfig(**config))  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([GOOD], "the first message must be open"),
        ([pb.DiarizeRequest()], "the first message must be open"),
        ([opening(), opening()], "open comes once, first"),
        ([opening(), pb.DiarizeRequest()], "holds nothing"),
        ([opening(), audio(0, b"\0" * 5)], "has 5 bytes: half a sample"),
        ([opening(), audio(0, b"")], "has 0 samples, not 1 to 160000"),
        ([opening(), audio(0, tone((0, 160_001)))], "has 160001 samples"),
        ([opening(), GOOD, audio(601, b"\0\0")], "first_sample is 601, but 600 comes next"),
        ([opening(), GOOD, audio(0, b"\0\0")], "first_sample is 0, but 600 comes next"),
        ([opening(5), GOOD], "first_sample is 0, but 5 comes next"),
        ([opening(), GOOD, gap(601, 5)], "gap.first_sample is 601, but 600 comes next"),
        ([opening(), gap(0, 0)], "gap.num_samples is 0"),
        ([opening(), gap(0, -1)], "gap.num_samples is -1"),
        ([opening(), gap(0, 1 << 48), GOOD], "comes next"),
        ([opening(1), gap(1, 1 << 48)], "goes beyond position"),
        ([opening(-1)], "open.first_sample is -1"),
        ([opening(1 << 62)], "not a position"),
        ([asking(max_speakers=-1)], "config.max_speakers is -1, not 0 to 60"),
        ([asking(max_speakers=61)], "config.max_speakers is 61"),
        ([asking(num_speakers=99)], "config.num_speakers is 99"),
        ([asking(num_speakers=3, max_speakers=2)], "is 3, and config.max_speakers 2"),
        ([asking(max_latency=Duration(nanos=1))], "config.max_latency is 1e-09 s, not 0.2 to 5 s"),
        ([asking(max_latency=Duration(seconds=6))], "config.max_latency is 6 s"),
        ([asking(enrolled=[SECOND[2:]])], "speaker 1 has 31998 bytes, not 1 to 30 s"),
        ([asking(enrolled=[SECOND, SECOND * 31])], "speaker 2 has 992000 bytes"),
        ([asking(enrolled=[SECOND] * 3, max_speakers=2)], "has 3 people: there are 2 at most"),
        ([asking(enrolled=[tone((0, 16_000))])], "somebody is enrolled with silence"),
        (
            [opening(5, checkpoint=stage_pb2.Checkpoint(format="level/1", replay_from_sample=6))],
            "open.first_sample is 5, but the checkpoint goes on from 6",
        ),
    ],
)
async def test_a_request_that_cannot_succeed_says_why(
    messages: list[pb.DiarizeRequest], reason: str, tmp_path: Path
) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        code, details = await refusal(replica.stub, messages)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (stage_pb2.Checkpoint(format="online/1", state=b"x"), "this replica reads 'level/1'"),
        (stage_pb2.Checkpoint(format="level/2", state=b"x"), "this replica reads 'level/1'"),
        (stage_pb2.Checkpoint(format="level/1", state=b"x"), "damaged"),
        (stage_pb2.Checkpoint(format="level/1"), "damaged"),
    ],
)
async def test_a_foreign_or_damaged_checkpoint_is_refused(
    checkpoint: stage_pb2.Checkpoint, reason: str, tmp_path: Path
) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        code, details = await refusal(replica.stub, [opening(checkpoint=checkpoint)])
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert reason in details


async def test_one_stream_too_many_is_refused_and_told_when_to_retry(tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path, max_streams=1) as replica:
        first = replica.stub.Diarize()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = replica.stub.Diarize()
        await second.write(opening())
        assert await second.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = await rpc_status.aio.from_call(second)
        assert status is not None
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.seconds > 0
        await first.write(FINISH)
        assert (await read(first)).HasField("finished")
        third = await converse(replica.stub, [opening(), FINISH])
    assert third[-1].HasField("finished"), "the slot is free again"


async def test_a_stream_for_which_the_model_is_too_slow_is_refused(tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        first = replica.stub.Diarize()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        replica.batcher._learn(100.0)
        code, details = await refusal(replica.stub, [opening()])
        file = pb.DiarizeConfig(pace=pb.PACE_FILE)
        waits = await converse(replica.stub, [opening(config=file), FINISH])
        await first.write(FINISH)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1 live streams speak, and 0 fit" in details
    assert waits[-1].HasField("finished"), "a file waits until nobody speaks"


@pytest.mark.parametrize("leave", ["cancel", "half-close"])
async def test_a_client_that_leaves_takes_its_tasks_with_it(leave: str, tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        before = asyncio.all_tasks()
        call = replica.stub.Diarize()
        await call.write(opening())
        assert (await read(call)).HasField("opened")
        await call.write(GOOD)
        assert streams_now() == 1
        if leave == "cancel":
            call.cancel()
        else:
            await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError, match="ended without finish"):
                await read_rest(call)
        await settle()
        assert streams_now() == 0
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in left if name.startswith("diarizer.")}
        assert not replica.batcher._seats


async def test_a_stopping_replica_says_go_away_and_goes_on_serving(tmp_path: Path) -> None:
    async with serving(LevelDiarizer(), tmp_path) as replica:
        calls = [replica.stub.Diarize() for _ in range(3)]
        for call in calls:
            await call.write(opening())
            assert (await read(call)).HasField("opened")
        replica.stopping.set()
        for call in calls:
            farewell = await read(call)
            assert farewell.go_away.deadline.seconds == DRAIN_S
            for message in [*cut(TALK, 1600), FINISH]:
                await call.write(message)
            rest = await read_rest(call)
            assert found(rest) == TURNS
            assert rest[-1].HasField("finished")
        code, _ = await refusal(replica.stub, [opening()])
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    bad = audio(0, b"\x00\x80" + tone((1, STEP)))
    async with serving(LevelDiarizer(), tmp_path) as replica:
        good, poisoned = await asyncio.gather(
            converse(replica.stub, [opening(), *cut(TALK, 1600), FINISH]),
            refusal(replica.stub, [opening(), bad]),
        )
    assert poisoned == (grpc.StatusCode.UNAVAILABLE, "a bad step")
    assert found(good) == TURNS
