"""Whole streams over a Unix socket, against a replica in this process."""

import asyncio
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.common.audio import BYTES_PER_SAMPLE
from services.common.timeline import SAMPLE_RATE_HZ
from services.vad.silero import SileroDetector
from tests.vad.harness import (
    DRAIN_S,
    FINISH,
    EnergyDetector,
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
from voxmesh.vad.v1 import vad_pb2 as pb

W = 512
SPEECH = tone((0, 8 * W), (0.9, 13 * W), (0, 20 * W))
SPEECH_EVENTS = [("started", 8 * W), ("ended", 21 * W)]


def streams_now() -> float:
    return REGISTRY.get_sample_value("voxmesh_streams", {"stage": "vad"}) or 0.0


async def settle() -> None:
    """Give tasks on both sides of the socket time to end."""
    for _ in range(100):
        await asyncio.sleep(0.01)
        if not streams_now():
            return


async def test_a_word_between_silences_is_told_as_the_contract_shows(tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(SPEECH, 1600), FINISH])
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds[0] == "opened"
    assert kinds[-1] == "finished"
    assert found(responses) == SPEECH_EVENTS
    heard = [response.heard for response in responses if response.HasField("heard")]
    assert len(heard) <= len(list(cut(SPEECH, 1600))) + 1
    assert heard[-1].through_sample == heard[-1].settled_through_sample == 41 * W
    assert any(message.speaking for message in heard)
    assert not heard[-1].speaking


async def test_nothing_is_said_twice(tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(SPEECH, 100), FINISH])
    heard = [response.heard.through_sample for response in responses if response.HasField("heard")]
    assert heard == sorted(set(heard))


async def test_results_do_not_depend_on_how_real_speech_is_cut(
    silero: SileroDetector, beckett: bytes, tmp_path: Path
) -> None:
    async with serving(silero, tmp_path) as replica:
        results = [
            found(await converse(replica.stub, [opening(), *cut(beckett, size), FINISH]))
            for size in (160_000, 1600, 512, 477, 3333)
        ]
    assert len(results[0]) == 12
    assert all(result == results[0] for result in results)


@hypothesis_settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=12))
def test_results_do_not_depend_on_irregular_cuts(sizes: list[int], tmp_path: Path) -> None:
    pcm = tone((0, 3000), (0.9, 5000), (0, 9000), (0.8, 7001), (0, 100), (0.9, 4000))

    def messages() -> list[pb.DetectRequest]:
        parts: list[pb.DetectRequest] = []
        position = 0
        while position < len(pcm) // BYTES_PER_SAMPLE:
            size = sizes[len(parts) % len(sizes)]
            begin = position * BYTES_PER_SAMPLE
            parts.append(audio(position, pcm[begin : begin + size * BYTES_PER_SAMPLE]))
            position += size
        return [opening(), *parts[:2000], FINISH]

    async def both() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        async with serving(EnergyDetector(), tmp_path) as replica:
            whole = await converse(replica.stub, [opening(), audio(0, pcm), FINISH])
            pieces = await converse(replica.stub, messages())
        return found(whole), found(pieces)

    if len(pcm) // BYTES_PER_SAMPLE / (sum(sizes) / len(sizes)) > 1900:
        sizes = [*sizes, 9000]
    whole, pieces = asyncio.run(both())
    assert len(whole) == 4
    assert pieces == whole


async def test_many_streams_at_once_hear_what_each_would_hear_alone(
    silero: SileroDetector, beckett: bytes, tmp_path: Path
) -> None:
    sizes = [160 + 97 * number for number in range(24)]
    parts = [beckett[number * 4000 :][:128_000] for number in range(24)]
    async with serving(silero, tmp_path) as replica:
        together = await asyncio.gather(
            *(
                converse(replica.stub, [opening(), *cut(part, size), FINISH])
                for part, size in zip(parts, sizes, strict=True)
            )
        )
        alone = [
            await converse(replica.stub, [opening(), *cut(part, size), FINISH])
            for part, size in zip(parts, sizes, strict=True)
        ]
    assert together == alone
    assert len({str(found(responses)) for responses in alone}) > 1


async def test_a_successor_goes_on_from_any_checkpoint(
    silero: SileroDetector, beckett: bytes, tmp_path: Path
) -> None:
    async with serving(silero, tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(beckett, 1600), FINISH])
        places = [n for n, response in enumerate(responses) if response.HasField("checkpoint")]
        assert len(places) == 9, "one for each second of audio but the last"
        for place in places:
            checkpoint = responses[place].checkpoint
            first = checkpoint.replay_from_sample
            resumed = await converse(
                replica.stub,
                [
                    opening(first, checkpoint=checkpoint),
                    *cut(beckett[first * BYTES_PER_SAMPLE :], 777, first),
                    FINISH,
                ],
            )
            assert found(resumed) == found(responses[place:])
            assert resumed[-2] == responses[-2], "the last that was heard"


async def test_checkpoints_are_small_and_a_second_apart(tmp_path: Path) -> None:
    pcm = tone((0, 10 * SAMPLE_RATE_HZ))
    async with serving(EnergyDetector(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), *cut(pcm, 1600), FINISH])
    checkpoints = [r.checkpoint for r in responses if r.HasField("checkpoint")]
    positions = [checkpoint.through_sample for checkpoint in checkpoints]
    assert all(b - a >= SAMPLE_RATE_HZ for a, b in pairwise(positions))
    assert len(positions) >= 8
    for checkpoint in checkpoints:
        assert checkpoint.replay_from_sample == checkpoint.through_sample
        assert checkpoint.format == "energy/1"
        assert len(checkpoint.state) < 2000


async def test_a_flush_hears_everything_and_moves_nothing(
    silero: SileroDetector, beckett: bytes, tmp_path: Path
) -> None:
    cuts = list(cut(beckett, 1601))
    flushed_after = 30
    messages = [opening(), *cuts[:flushed_after], flush(7), *cuts[flushed_after:], FINISH]
    async with serving(silero, tmp_path) as replica:
        plain = await converse(replica.stub, [opening(), *cuts, FINISH])
        responses = await converse(replica.stub, messages)
    [place] = [n for n, response in enumerate(responses) if response.HasField("flushed")]
    assert responses[place].flushed.flush_id == 7
    heard = responses[place - 1].heard
    assert heard.through_sample == heard.settled_through_sample == flushed_after * 1601
    assert found(responses) == found(plain)
    after = [response.heard for response in responses[place:] if response.HasField("heard")]
    undisturbed = [response.heard for response in plain if response.HasField("heard")]
    assert after == undisturbed[-len(after) :], "every probability is what it would have been"


async def test_a_flush_without_audio_is_answered(tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        responses = await converse(replica.stub, [opening(), flush(1), flush(2), FINISH])
    kinds = [response.WhichOneof("event") for response in responses]
    assert kinds == ["opened", "flushed", "flushed", "finished"]


@pytest.mark.parametrize("num_samples", [1, 511, 512, 513, 40_000, 10**12 + 7])
async def test_a_gap_of_any_length_is_silence_and_keeps_positions_exact(
    num_samples: int, tmp_path: Path
) -> None:
    before, after = tone((0.9, 9 * W + 100)), tone((0, 20 * W), (0.9, 13 * W), (0, 20 * W))
    end = 9 * W + 100 + num_samples
    messages = [
        opening(),
        *cut(before, 1000),
        gap(9 * W + 100, num_samples),
        *cut(after, 1000, end),
        FINISH,
    ]
    zeros = tone((0, num_samples)) if num_samples < 10**6 else None
    async with serving(EnergyDetector(), tmp_path) as replica:
        responses = await converse(replica.stub, messages)
        if zeros is not None:
            silent = [opening(), *cut(before + zeros + after, 1000), FINISH]
            assert found(responses) == found(await converse(replica.stub, silent))
    [last] = [r.heard for r in responses if r.HasField("heard")][-1:]
    assert last.through_sample == end + len(after) // BYTES_PER_SAMPLE
    assert len([name for name, _ in found(responses) if name == "started"]) == 2
    [(_, started), (_, ended)] = found(responses)[-2:]
    assert 0 <= started - (end + 20 * W) + W <= 2 * W
    assert 0 <= ended - (end + 33 * W) + W <= 2 * W


async def test_a_gap_makes_the_model_forget(
    silero: SileroDetector, beckett: bytes, tmp_path: Path
) -> None:
    """What follows a gap is heard as by a stream that starts there."""
    offset = 40 * W
    async with serving(silero, tmp_path) as replica:
        fresh = await converse(replica.stub, [opening(offset), *cut(beckett, 1600, offset), FINISH])
        used = await converse(
            replica.stub,
            [
                opening(),
                *cut(beckett[40_000 : 40_000 + 20 * W * BYTES_PER_SAMPLE], 1600),
                gap(20 * W, 20 * W),
                *cut(beckett, 1600, offset),
                FINISH,
            ],
        )
    assert found(used)[-12:] == found(fresh)
    assert used[-2] == fresh[-2]


@pytest.mark.parametrize(
    ("config", "events"),
    [
        (pb.DetectConfig(), SPEECH_EVENTS),
        (pb.DetectConfig(min_speech=Duration(nanos=500_000_000)), []),
        (pb.DetectConfig(min_speech=Duration(nanos=400_000_000)), SPEECH_EVENTS),
        (pb.DetectConfig(hangover=Duration(seconds=10)), SPEECH_EVENTS),
        (pb.DetectConfig(onset_threshold=0.95), [("started", 10 * W), ("ended", 21 * W)]),
        (pb.DetectConfig(offset_threshold=0.01), [("started", 8 * W), ("ended", 24 * W)]),
        (pb.DetectConfig(onset_threshold=0.2), [("started", 8 * W), ("ended", 22 * W)]),
    ],
)
async def test_a_stream_may_choose_when_speech_counts(
    config: pb.DetectConfig, events: list[tuple[str, int]], tmp_path: Path
) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        messages = [opening(config=config), *cut(SPEECH, 1600), FINISH]
        assert found(await converse(replica.stub, messages)) == events


GOOD = audio(0, tone((0, 600)))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([GOOD], "the first message must be open"),
        ([pb.DetectRequest()], "the first message must be open"),
        ([opening(), opening()], "open comes once, first"),
        ([opening(), pb.DetectRequest()], "holds nothing"),
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
        ([opening(config=pb.DetectConfig(onset_threshold=0.96))], "onset_threshold is 0.96"),
        ([opening(config=pb.DetectConfig(onset_threshold=float("nan")))], "onset_threshold is nan"),
        ([opening(config=pb.DetectConfig(offset_threshold=0.6))], "is 0.6, not 0.01 to 0.5"),
        ([opening(config=pb.DetectConfig(hangover=Duration(nanos=31_000_000)))], "0.031 s, not"),
        ([opening(config=pb.DetectConfig(min_speech=Duration(seconds=-1)))], "min_speech is -1 s"),
        ([opening(config=pb.DetectConfig(max_speech=Duration(seconds=4)))], "max_speech is 4 s"),
        (
            [opening(5, checkpoint=stage_pb2.Checkpoint(format="energy/1", replay_from_sample=6))],
            "open.first_sample is 5, but the checkpoint goes on from 6",
        ),
    ],
)
async def test_a_request_that_cannot_succeed_says_why(
    messages: list[pb.DetectRequest], reason: str, tmp_path: Path
) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        code, details = await refusal(replica.stub, messages)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        (stage_pb2.Checkpoint(format="silero/1", state=b"x"), "this replica reads 'energy/1'"),
        (stage_pb2.Checkpoint(format="energy/2", state=b"x"), "this replica reads 'energy/1'"),
        (stage_pb2.Checkpoint(format="energy/1", state=b"x"), "damaged"),
        (stage_pb2.Checkpoint(format="energy/1"), "damaged"),
    ],
)
async def test_a_foreign_or_damaged_checkpoint_is_refused(
    checkpoint: stage_pb2.Checkpoint, reason: str, tmp_path: Path
) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        code, details = await refusal(replica.stub, [opening(checkpoint=checkpoint)])
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert reason in details


async def test_one_stream_too_many_is_refused_and_told_when_to_retry(tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path, max_streams=1) as replica:
        first = replica.stub.Detect()
        await first.write(opening())
        assert (await read(first)).HasField("opened")
        second = replica.stub.Detect()
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


@pytest.mark.parametrize("leave", ["cancel", "half-close"])
async def test_a_client_that_leaves_takes_its_tasks_with_it(leave: str, tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        before = asyncio.all_tasks()
        call = replica.stub.Detect()
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
        assert not {name for name in left if name.startswith("vad.")}


async def test_a_stopping_replica_says_go_away_and_goes_on_serving(tmp_path: Path) -> None:
    async with serving(EnergyDetector(), tmp_path) as replica:
        calls = [replica.stub.Detect() for _ in range(3)]
        for call in calls:
            await call.write(opening())
            assert (await read(call)).HasField("opened")
        replica.stopping.set()
        for call in calls:
            farewell = await read(call)
            assert farewell.go_away.deadline.seconds == DRAIN_S
            for message in [*cut(SPEECH, 1600), FINISH]:
                await call.write(message)
            rest = await read_rest(call)
            assert found(rest) == SPEECH_EVENTS
            assert rest[-1].HasField("finished")
        code, _ = await refusal(replica.stub, [opening()])
    assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_breaks_the_model_fails_alone(tmp_path: Path) -> None:
    bad = audio(0, tone((-1.00004, 1), (0, W - 1)))
    assert bad.audio.pcm[:2] == b"\x00\x80"
    async with serving(EnergyDetector(), tmp_path) as replica:
        good, poisoned = await asyncio.gather(
            converse(replica.stub, [opening(), *cut(SPEECH, 1600), FINISH]),
            refusal(replica.stub, [opening(), bad]),
        )
    assert poisoned == (grpc.StatusCode.UNAVAILABLE, "a bad window")
    assert found(good) == SPEECH_EVENTS
