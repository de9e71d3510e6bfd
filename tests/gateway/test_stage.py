"""One stage against a scripted recogniser: what is sent again after a stream was lost, and when."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from services.common.channel import open_channel
from services.common.errors import (
    DeviceError,
    InvalidRequestError,
    MeshError,
    NotFoundError,
    OverloadedError,
    UpstreamError,
)
from services.common.ring import Ring
from services.gateway.recovery import Patience, Recovery, StreamLostError, loss
from services.gateway.route import Heard, Route, RoutedAudio
from services.gateway.session_config import SessionConfig
from services.gateway.stage import Stage
from services.gateway.transcript import Notice, Transcript
from services.gateway.upstream import AsrUpstream
from tests.gateway.fakes import RATE, FakeAsr, Replica, words_at
from voxmesh.asr.v1 import asr_pb2, asr_pb2_grpc

BOOM = StreamLostError("unavailable", "boom", crashed=True)
PATIENCE = Patience(open_s=1.0, hedge_s=0.5, stall_s=5.0, lost_s=5.0)


class Rig:
    """A stage with a lane of 60 s whose audio is all there."""

    def __init__(self, target: str, patience: Patience) -> None:
        self.route = Route()
        self.ring = Ring(60 * RATE)
        self.ring.append(bytes(2 * 60 * RATE))
        self.transcript = Transcript()
        self.notices: list[Notice] = []
        self.channel = open_channel(target)
        config = SessionConfig("s", "test")
        self.stage: Stage[Heard, asr_pb2.TranscribeRequest, asr_pb2.TranscribeResponse] = Stage(
            AsrUpstream(self.channel, config, self.transcript, committed=self.transcript.commit),
            RoutedAudio(self.route, self.ring),
            patience,
            quarantine=asyncio.Lock(),
            unanswered_samples=RATE,
            moved=lambda: None,
            notify=self.notices.append,
        )

    async def run(self) -> None:
        async with asyncio.timeout(20):
            await self.stage.run()


@asynccontextmanager
async def rig(asr: FakeAsr, patience: Patience = PATIENCE) -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="vm") as folder:
        replica = Replica(
            Path(folder) / "asr",
            lambda server: asr_pb2_grpc.add_AsrServiceServicer_to_server(asr, server),
            "voxmesh.asr.v1.AsrService",
        )
        await replica.start()
        made = Rig(replica.target, patience)
        yield made
        await made.channel.close()
        await replica.kill()


async def test_a_successor_hears_again_what_came_after_the_checkpoint_and_nothing_else() -> None:
    asr = FakeAsr(words_at(1, 2, 3, 4.6))
    asr.faults.once = {5 * RATE: DeviceError("lost")}
    async with rig(asr) as made:
        made.route.add_audio(4 * RATE)
        made.route.add_gap(round(4.5 * RATE))
        made.route.add_audio(6 * RATE)
        made.route.complete()
        await made.run()
    first, second = asr.streams
    assert second.open.first_sample == second.open.checkpoint.replay_from_sample
    assert second.audio[0][0] == second.open.first_sample > 0
    assert second.gaps == first.gaps
    assert second.end == 6 * RATE
    assert list(made.transcript.words) == asr.words


async def test_marks_behind_the_checkpoint_are_asked_again_in_the_same_places() -> None:
    asr = FakeAsr(words_at(1, 2, 3, 6))
    asr.faults.once = {5 * RATE: DeviceError("lost")}
    async with rig(asr) as made:
        for end in (round(1.7 * RATE), round(4.1 * RATE), 7 * RATE):
            made.route.add_audio(end)
            made.route.add_mark()
        made.route.complete()
        await made.run()
    first, second = asr.streams
    assert first.flushes == [round(1.7 * RATE), round(4.1 * RATE)]
    through = second.open.checkpoint.through_sample
    assert second.flushes == [mark for mark in (round(4.1 * RATE), 7 * RATE) if mark > through]


async def test_a_mark_that_was_not_answered_is_asked_when_the_replay_has_passed_it() -> None:
    asr = FakeAsr(words_at(1, 2, 3))
    asr.certain_after = 0
    async with rig(asr, Patience(1.0, 0.5, 0.4, 5.0)) as made:
        made.route.add_audio(4 * RATE)
        mark = made.route.add_mark()
        # It hangs with the flush before it: all words but the last are committed by then.
        asr.faults.hangs = {mark}
        made.route.complete()
        await made.run()
    assert made.stage.flushed_sample == mark
    assert list(made.transcript.words) == asr.words


async def test_a_stage_that_does_not_accept_a_stream_in_time_is_given_up() -> None:
    class Mute(FakeAsr):
        async def _open(self, *_args: object) -> None:  # type: ignore[override]  # never returns
            await asyncio.Event().wait()

    async with rig(Mute(), Patience(0.1, 0.05, 5.0, 0.3)) as made:
        with pytest.raises(UpstreamError, match="lost for too long"):
            await made.run()
    assert [notice.code for notice in made.notices] == ["DEGRADED"]


async def test_audio_is_cut_into_small_messages_and_never_read_twice_while_all_is_well() -> None:
    asr = FakeAsr(words_at(1))
    async with rig(asr) as made:
        made.route.add_audio(50 * RATE)
        made.route.complete()
        await made.run()
        assert made.stage.answered_sample == 50 * RATE
        assert made.route.first_audio(made.stage.replay_sample) >= asr.words[0].end_sample
    assert asr.streams[0].audio == [(0, 50 * RATE)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.UNIMPLEMENTED, UpstreamError),
        (grpc.StatusCode.UNAVAILABLE, StreamLostError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, StreamLostError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StreamLostError),
        (grpc.StatusCode.INTERNAL, StreamLostError),
        (grpc.StatusCode.FAILED_PRECONDITION, StreamLostError),
    ],
)
def test_what_the_end_of_a_stream_means(code: grpc.StatusCode, kind: type[Exception]) -> None:
    error = loss("asr", code, "why", opened=True)
    assert type(error) is kind
    assert str(error) == "asr: why"


@pytest.mark.parametrize(
    ("code", "opened", "crashed"),
    [
        (grpc.StatusCode.UNAVAILABLE, True, True),
        (grpc.StatusCode.INTERNAL, True, True),
        (grpc.StatusCode.UNAVAILABLE, False, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, False),
    ],
)
def test_only_a_stream_that_was_accepted_can_crash(
    code: grpc.StatusCode, opened: bool, crashed: bool
) -> None:
    error = loss("asr", code, "", opened=opened)
    assert isinstance(error, StreamLostError)
    assert error.crashed is crashed


def recovery_of(crashes: Sequence[tuple[int, int, int]]) -> Recovery:
    """Streams that broke: where each stood, through where it had heard, and had been sent."""
    recovery = Recovery("asr", 1.0, lambda _notice: None)
    for settled, heard, sent in crashes:
        recovery.heard(heard)
        recovery.crashed(settled, sent, BOOM)
    return recovery


@pytest.mark.parametrize(
    ("crashes", "suspect"),
    [
        pytest.param([(0, 0, 100)], False, id="one"),
        pytest.param([(0, 0, 100), (0, 40, 300)], True, id="neither got past the same audio"),
        pytest.param([(0, 0, 100), (50, 60, 300)], False, id="the second got on"),
        pytest.param([(0, 0, 100), (0, 40, 60), (0, 70, 80)], False, id="the third got past it"),
        pytest.param([(0, 0, 100), (0, 100, 300)], False, id="the second got past it"),
        pytest.param([(0, 0, 100), (0, 100, 300), (0, 120, 400)], True, id="and broke behind it"),
        pytest.param([(0, 0, 0), (0, 0, 0), (0, 0, 0)], False, id="before any audio"),
        pytest.param([(50, 0, 50), (50, 0, 50)], False, id="told nothing new"),
        pytest.param([(50, 0, 60), (50, 0, 50)], False, id="the second was told nothing new"),
    ],
)
def test_audio_is_suspected_when_two_streams_broke_on_it(
    crashes: Sequence[tuple[int, int, int]], suspect: bool
) -> None:
    """F4."""
    assert recovery_of(crashes).suspect is suspect


def test_audio_that_was_suspected_and_breaks_a_stream_again_is_given_up() -> None:
    """F4."""
    recovery = recovery_of([(0, 0, 100), (0, 0, 100)])
    with pytest.raises(UpstreamError, match="same audio"):
        recovery.crashed(0, 100, BOOM)


@pytest.mark.parametrize(
    ("reason", "kind"), [("overloaded", OverloadedError), ("unavailable", UpstreamError)]
)
async def test_patience_ends_with_the_error_that_says_why(
    reason: str, kind: type[MeshError]
) -> None:
    notices: list[Notice] = []
    recovery = Recovery("asr", 0.05, notices.append)
    lost = StreamLostError(reason, "gone")
    await recovery.lost(lost)
    with pytest.raises(kind):
        await recovery.lost(lost)
    assert [notice.code for notice in notices] == ["DEGRADED"]


async def test_progress_renews_patience() -> None:
    notices: list[Notice] = []
    recovery = Recovery("asr", 0.05, notices.append)
    lost = StreamLostError("unavailable", "gone")
    for _ in range(3):
        await recovery.lost(lost)
        recovery.connected()
        recovery.progress()
    assert [notice.code for notice in notices] == ["DEGRADED", "RECOVERED"] * 3
