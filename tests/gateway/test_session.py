"""Whole sessions against scripted stages."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from services.common.errors import (
    DeviceError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    StreamTooLongError,
    UpstreamError,
)
from services.common.words import Word, text_of
from services.gateway.session import Pace, Session, SessionConfig
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeVad,
    Heard,
    Mesh,
    Replica,
    Transcribed,
    running,
    silence,
    spans_of,
    words_at,
)
from voxmesh.asr.v1 import asr_pb2


def config(**fields: object) -> SessionConfig:
    return SessionConfig(**{"session_id": "s", "protocol": "test", **fields})  # type: ignore[arg-type]


class DyingAsr(FakeAsr):
    """Dies, with all of its streams, of what it hears in a session whose prompt is ``deadly``.

    It takes its time for the audio that is replayed to it, as a model does.
    """

    replica: Replica
    deaths = 0

    async def _answer(self, heard: Heard, certain: int, send: Transcribed) -> None:
        await asyncio.sleep(0.005)
        if heard.open.config.prompt == "deadly" and heard.end > 2 * RATE:
            self.deaths += 1
            self.dying = asyncio.create_task(self._die())
            await asyncio.Event().wait()
        await super()._answer(heard, certain, send)

    async def _die(self) -> None:
        await self.replica.kill()
        await self.replica.start()


async def transcribe(mesh: Mesh, audio: AsyncIterator[bytes], **fields: object) -> Session:
    async with mesh.gateway.session(config(**fields)) as session:
        async with asyncio.timeout(60):
            await session.run(audio)
    return session


def script(*seconds: float) -> tuple[FakeVad, FakeAsr]:
    words = words_at(*seconds)
    return FakeVad(spans_of(words)), FakeAsr(words)


async def test_every_word_arrives_once_with_its_own_times() -> None:
    """W1."""
    vad, asr = script(0.5, 1.0, 3.0, 6.5)
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(8))
    assert list(session.transcript.words) == asr.words
    assert session.transcript.finished
    assert session.transcript.tail == ()
    assert session.transcript.model == "fake"
    [decoding, *_] = session.transcript.decodings
    assert decoding.first_word == 0


@pytest.mark.parametrize("pace", Pace)
async def test_what_is_said_up_to_the_last_sample_is_transcribed(pace: Pace) -> None:
    """W2. P2: no stage keeps the last part of a second to itself, live or in a recording."""
    for length_s in [tenths / 10 for tenths in range(1, 31)]:
        words = words_at(0.05, length_s=length_s - 0.05)
        async with running(FakeVad(spans_of(words)), FakeAsr(words)) as mesh:
            session = await transcribe(mesh, silence(length_s), pace=pace)
        assert list(session.transcript.words) == words


async def test_pauses_of_any_length_move_no_word() -> None:
    """P3: times are positions on one clock; no pause shifts them."""
    chance = random.Random(3)
    for _ in range(100):
        at = 0.0
        starts = []
        for _ in range(5):
            at += chance.choice([0.5, 0.8, 2.0, 5.5, 8.0]) + chance.random()
            starts.append(at)
        vad, asr = script(*starts)
        async with running(vad, asr) as mesh:
            session = await transcribe(mesh, silence(at + chance.random() * 3, block_s=1.3))
        spoken = [
            word for word in asr.words if word.end_sample <= session.transcript.received_sample
        ]
        assert list(session.transcript.words) == spoken


@pytest.mark.parametrize("pace", Pace)
async def test_the_recogniser_hears_speech_and_is_told_of_the_rest(pace: Pace) -> None:
    vad, asr = script(10.0, 40.0)
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(50), pace=pace)
    [stream] = asr.streams
    heard_s = sum(end - first for first, end in stream.audio) / RATE
    assert heard_s < 3
    assert stream.end == session.transcript.received_sample
    assert bool(stream.flushes) is (pace is Pace.LIVE)


async def test_the_vad_is_told_when_speech_is_to_start_and_end() -> None:
    vad, asr = script()
    async with running(vad, asr) as mesh:
        await transcribe(mesh, silence(1))
        await transcribe(mesh, silence(1), onset_threshold=0.25, hangover_ms=350)
    default, chosen = (opening.config for opening in vad.opens)
    assert not (default.HasField("onset_threshold") or default.HasField("hangover"))
    assert chosen.onset_threshold == 0.25
    assert chosen.hangover.ToMilliseconds() == 350


async def test_silence_needs_few_messages() -> None:
    vad, asr = script()
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(60))
    assert session.transcript.revision == 1, "only the end is news"
    assert asr.streams[0].audio == []


async def test_readers_are_told_where_speech_is_and_how_far_everything_is_said() -> None:
    words = words_at(1.0, 4.0)
    vad, asr = FakeVad(spans_of(words)), FakeAsr(words)
    seen: list[tuple[int, int]] = []

    def due() -> bool:
        transcript = session.transcript
        seen.append((transcript.settled_sample, len(transcript.words)))
        return False

    async with (
        running(vad, asr) as mesh,
        mesh.gateway.session(config()) as session,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(session.run(silence(8)))
        await session.changed(10**6, due=due)
    assert [span.first_sample // RATE for span in session.transcript.speech] == [0, 3]
    for settled, num_words in seen:
        assert num_words == sum(word.first_sample < settled for word in words)
    assert any(2 * RATE < settled < 4 * RATE for settled, _ in seen)


async def test_speech_is_heard_from_300_ms_before_it_starts() -> None:
    """P7, at 40 phases of 1 ms against the detector's windows."""
    for phase in range(40):
        onset = 2 * RATE + 16 * phase
        words = [Word(" w", onset, onset + 4000)]
        vad, asr = FakeVad([(onset, onset + 4000)]), FakeAsr(words)
        async with running(vad, asr) as mesh:
            session = await transcribe(mesh, silence(4))
        [(first, _end)] = asr.streams[0].audio
        assert first <= onset // 512 * 512 - 4800
        assert list(session.transcript.words) == words


async def test_a_long_recording_is_fed_no_faster_than_it_is_kept() -> None:
    """O2. P12: a stage that stands still for 90 s of audio loses nothing of it."""
    vad, asr = script(*range(1, 110, 2))
    asr.faults.gate.clear()
    async with running(vad, asr) as mesh, mesh.gateway.session(config(pace=Pace.FILE)) as session:
        run = asyncio.create_task(session.run(silence(115)))
        await asyncio.sleep(1.0)  # longer than it takes to fill the ring
        kept = session.transcript.received_sample
        assert kept <= 61 * RATE, "the ring, and the silence before the first word"
        await asyncio.sleep(0.2)
        assert session.transcript.received_sample == kept, "the client waits"
        asr.faults.gate.set()
        async with asyncio.timeout(30):
            await run
    assert list(session.transcript.words) == asr.words


async def test_a_recogniser_that_fails_is_replaced_and_loses_nothing() -> None:
    """F1. P1: one error, told as a notice, and every word."""
    vad, asr = script(*[0.5 * i for i in range(1, 40)])
    asr.faults.once = {
        3 * RATE: DeviceError("device lost"),
        7 * RATE + 100: ZeroDivisionError,
        12 * RATE: DeviceError("again"),
        12 * RATE + 2000: DeviceError("and again"),
    }
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(21))
    assert list(session.transcript.words) == asr.words
    assert len(asr.streams) == 5
    codes = [notice.code for notice in session.transcript.notices]
    assert codes == ["DEGRADED", "RECOVERED"] * 4
    assert {notice.stage for notice in session.transcript.notices} == {"asr"}


async def test_a_recogniser_that_hangs_is_replaced() -> None:
    """F3. P19."""
    vad, asr = script(*range(1, 20))
    asr.faults.hangs = {5 * RATE}
    async with running(vad, asr, stall_s=0.4) as mesh:
        session = await transcribe(mesh, silence(22))
    assert list(session.transcript.words) == asr.words
    assert len(asr.streams) == 2


async def test_a_recogniser_that_is_killed_anywhere_loses_nothing() -> None:
    """F1. P18, at random moments of a session that runs at many times real time."""
    chance = random.Random(18)
    for _ in range(5):
        vad, asr = script(*[0.7 * i for i in range(1, 60)])

        async def slowly() -> AsyncIterator[bytes]:
            async for block in silence(44):
                yield block
                await asyncio.sleep(0.002)  # so that there is a middle to kill it in

        async with running(vad, asr) as mesh, mesh.gateway.session(config()) as session:
            run = asyncio.create_task(session.run(slowly()))
            for _ in range(3):
                await asyncio.sleep(0.1 + chance.random() * 0.2)
                await mesh.asr_replica.kill()
                await asyncio.sleep(chance.random() * 0.2)
                await mesh.asr_replica.start()
            async with asyncio.timeout(30):
                await run
        assert list(session.transcript.words) == asr.words


async def test_a_vad_that_is_killed_is_replaced_and_nobody_hears_of_it_twice() -> None:
    vad, asr = script(*[0.7 * i for i in range(1, 40)])
    vad.faults.once = {at * RATE: DeviceError("lost") for at in (2, 5, 9, 17)}
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(30))
    assert list(session.transcript.words) == asr.words
    assert vad.streams == 5
    assert len(asr.streams) == 1
    assert asr.streams[0].flushes == sorted(set(asr.streams[0].flushes))


async def test_without_a_vad_everything_is_heard() -> None:
    """F5."""
    vad, asr = script(1.0, 5.0, 12.0)
    async with running(vad, asr, vad_patience_s=0.2) as mesh:
        await mesh.vad_replica.kill()
        session = await transcribe(mesh, silence(70, block_s=1.0))
    assert list(session.transcript.words) == asr.words
    assert asr.streams[0].audio == [(0, 70 * RATE)]
    assert [(n.code, n.retryable) for n in session.transcript.notices] == [
        ("DEGRADED", True),
        ("DEGRADED", False),
    ]


async def test_a_vad_that_is_lost_in_the_middle_leaves_no_hole() -> None:
    """F5."""
    vad, asr = script(1.0, 5.0, 12.0, 13.0)
    vad.faults.once = {6 * RATE: DeviceError("lost")}
    async with running(vad, asr, vad_patience_s=0.2) as mesh:
        vad.faults.always = {}
        async with mesh.gateway.session(config()) as session:

            async def audio() -> AsyncIterator[bytes]:
                sent = 0
                async for block in silence(16):
                    yield block
                    sent += len(block) // 2
                    if sent == 6 * RATE:
                        await mesh.vad_replica.kill()

            async with asyncio.timeout(20):
                await session.run(audio())
    assert list(session.transcript.words) == asr.words


async def test_a_recogniser_is_told_whether_a_session_comes_from_another_one() -> None:
    """O2."""
    vad, asr = script(0.5, 1.5)
    asr.faults.once = {RATE: DeviceError("lost")}
    async with running(vad, asr) as mesh:
        await transcribe(mesh, silence(3))
    assert [stream.open.moved for stream in asr.streams] == [False, True]


async def test_a_replica_that_is_asked_to_stop_hands_its_streams_on() -> None:
    """D1."""
    vad, asr = script(*[0.7 * i for i in range(1, 60)])

    async def audio() -> AsyncIterator[bytes]:
        for number in range(440):
            yield bytes(3200)
            await asyncio.sleep(0.001)  # so that answers come while audio goes
            if number in {100, 200, 201, 350}:
                asr.departure.leave()
            if number in {150, 300}:
                vad.departure.leave()

    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, audio())
    assert list(session.transcript.words) == asr.words
    assert len(asr.streams) >= 4
    assert vad.streams == 3
    assert session.transcript.notices == [], "a planned move is nobody's trouble"


async def test_audio_that_kills_every_recogniser_is_reported_not_replayed_for_ever() -> None:
    """F4. There is no word before it that one stream might commit and another one not."""
    vad, asr = script(2.0, 6.0)
    asr.faults.always = {round(2.2 * RATE): DeviceError("boom")}
    async with running(vad, asr) as mesh:
        with pytest.raises(UpstreamError, match="asr failed again on the same audio"):
            await transcribe(mesh, silence(10))
    assert len(asr.streams) == 3


async def test_audio_that_kills_the_recogniser_takes_no_other_session_with_it() -> None:
    """F4. All sessions lose their streams whenever one of them has killed the process."""
    words = words_at(*[0.5 * i for i in range(1, 19)])
    vad, asr = FakeVad(spans_of(words)), DyingAsr(words)
    async with running(vad, asr) as mesh:
        asr.replica = mesh.asr_replica

        async def audio() -> AsyncIterator[bytes]:
            async for block in silence(10):
                yield block
                await asyncio.sleep(0.002)  # so that there is a middle

        deadly = asyncio.create_task(transcribe(mesh, audio(), prompt="deadly"))
        innocent = [asyncio.create_task(transcribe(mesh, audio())) for _ in range(6)]
        with pytest.raises(UpstreamError, match="asr failed again on the same audio"):
            await deadly
        for session in await asyncio.gather(*innocent):
            assert list(session.transcript.words) == words
    assert asr.deaths == 3


async def test_a_recogniser_that_stays_away_ends_the_session_with_an_error() -> None:
    """F6."""
    vad, asr = script(1.0)
    async with running(vad, asr, asr_patience_s=0.3) as mesh:
        await mesh.asr_replica.kill()
        with pytest.raises(UpstreamError, match="asr has been lost for too long"):
            await transcribe(mesh, silence(5))


async def test_an_upgrade_that_changes_checkpoints_loses_no_word_and_repeats_none() -> None:
    vad, asr = script(*[0.7 * i for i in range(1, 30)])

    async def audio() -> AsyncIterator[bytes]:
        for number in range(220):
            yield bytes(3200)
            await asyncio.sleep(0.001)  # so that answers come while audio goes
            if number == 100:
                asr.format = "fake/2"
                asr.departure.leave()

    asr.faults.once = {round(12.1 * RATE): DeviceError("the old replica ends")}
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, audio())
    assert list(session.transcript.words) == asr.words
    assert not asr.streams[-1].open.HasField("checkpoint")


async def test_a_recogniser_without_room_is_asked_again() -> None:
    vad, asr = script(1.0)
    asr.faults.refusals = 2
    async with running(vad, asr) as mesh:
        session = await transcribe(mesh, silence(3))
    assert list(session.transcript.words) == asr.words


async def test_a_recogniser_that_never_has_room_refuses_the_session() -> None:
    vad, asr = script(1.0)
    asr.faults.refusals = 1000
    async with running(vad, asr, asr_patience_s=0.3) as mesh:
        with pytest.raises(OverloadedError):
            await transcribe(mesh, silence(3))


async def test_a_session_ends_at_its_limit() -> None:
    vad, asr = script(1.0)
    async with running(vad, asr, max_session_s=5, max_file_s=8) as mesh:
        with pytest.raises(StreamTooLongError, match="5 s"):
            await transcribe(mesh, silence(6))
        await transcribe(mesh, silence(6), pace=Pace.FILE)


async def test_one_session_more_than_there_is_room_for_is_refused() -> None:
    """O1."""
    async with running(*script(), max_sessions=1) as mesh:
        async with mesh.gateway.session(config()):
            with pytest.raises(OverloadedError):
                await transcribe(mesh, silence(0.1))
        await transcribe(mesh, silence(0.1))
        await transcribe(mesh, silence(0.1))


async def test_what_no_pool_can_do_is_refused_before_it_starts() -> None:
    async with running(*script()) as mesh:
        with pytest.raises(NotFoundError, match="fake"):
            await transcribe(mesh, silence(0.1), model="x")
        with pytest.raises(InvalidRequestError, match="en, fr"):
            await transcribe(mesh, silence(0.1), language_code="de")


async def test_sessions_in_two_languages_do_not_meet() -> None:
    """P9."""
    words = words_at(*range(1, 9))
    vad = FakeVad(spans_of(words))
    asr = FakeAsr(words, speak=lambda language, word: f" {language}{word.text}")
    async with running(vad, asr) as mesh:
        sessions = await asyncio.gather(
            *(
                transcribe(mesh, silence(10), language_code=code, session_id=str(number))
                for number, code in enumerate(["en", "fr", "en-US", ""] * 2)
            )
        )
    for session, code in zip(sessions, ["en", "fr", "en", ""] * 2, strict=True):
        assert [word.text.split()[0] for word in session.transcript.words] == (
            [code] * 8 if code else [f"w{i}" for i in range(8)]
        )


async def test_the_default_language_is_the_gateways() -> None:
    async with running(*script(), language="fr") as mesh:
        await transcribe(mesh, silence(0.5))
        await transcribe(mesh, silence(0.5), language_code="en")
    assert [stream.open.config.language_code for stream in mesh.asr.streams] == ["fr", "en"]


async def test_a_flush_returns_when_everything_received_is_decided() -> None:
    words = words_at(1.0, 1.6, 4.0)
    vad, asr = FakeVad(spans_of(words)), FakeAsr(words)
    sent, done = asyncio.Event(), asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        async for block in silence(2.1):
            yield block
        sent.set()
        await done.wait()
        async for block in silence(4):
            yield block

    async with running(vad, asr) as mesh, mesh.gateway.session(config()) as session:
        run = asyncio.create_task(session.run(audio()))
        await sent.wait()
        async with asyncio.timeout(20):
            await session.flush()
            assert text_of(session.transcript.words) == " w0 w1"
            await session.flush()
        assert session.transcript.committed_sample <= session.transcript.decoded_sample
        done.set()
        await run
    assert list(session.transcript.words) == words


async def test_a_flush_before_any_audio_returns() -> None:
    asking = asyncio.Event()

    async def audio() -> AsyncIterator[bytes]:
        await asking.wait()
        yield bytes(3200)

    async with running(*script()) as mesh, mesh.gateway.session(config()) as session:
        run = asyncio.create_task(session.run(audio()))
        async with asyncio.timeout(20):
            await session.flush()
        asking.set()
        await run


async def test_readers_are_told_of_what_changed_and_of_the_end() -> None:
    vad, asr = script(1.0, 2.0)
    async with running(vad, asr) as mesh, mesh.gateway.session(config()) as session:
        run = asyncio.create_task(session.run(silence(5)))
        seen = -1
        texts = []
        while not session.ended:
            seen = await session.changed(seen, timeout_s=5)
            texts.append(text_of(session.transcript.words))
        await run
        assert await session.changed(seen) == seen, "the end never blocks"
        assert await session.changed(-1, timeout_s=0.01) == seen
    assert texts[-1] == " w0 w1"


async def test_half_samples_are_put_together() -> None:
    async def audio() -> AsyncIterator[bytes]:
        for size in (1, 3, 2, 0, 7, 1):
            yield bytes(size)

    async with running(*script()) as mesh:
        session = await transcribe(mesh, audio())
    assert session.transcript.received_sample == 7


async def test_sessions_that_are_dropped_leave_no_task_behind() -> None:
    """P16, P27: 200 sessions cut off at any moment."""
    vad, asr = script(1.0, 2.0)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(3200)
            await asyncio.sleep(0.001)  # so that there is a middle to cut

    async with running(vad, asr, max_sessions=200) as mesh:
        await transcribe(mesh, silence(0.1))
        await asyncio.sleep(0.1)  # let the first streams end
        before = len(asyncio.all_tasks())

        async def cut(number: int) -> None:
            async with mesh.gateway.session(config(session_id=str(number))) as session:
                run = asyncio.create_task(session.run(endless()))
                await asyncio.sleep(0.001 * (number % 50))
                run.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await run

        for start in range(0, 200, 20):
            await asyncio.gather(*(cut(start + number) for number in range(20)))
        async with asyncio.timeout(10):
            while vad.live or asr.live or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 -- nobody says when a task is gone
                await asyncio.sleep(0.05)


async def test_a_recogniser_that_never_lets_go_of_audio_ends_the_session() -> None:
    vad, asr = FakeVad([(0, 200 * RATE)]), FakeAsr()
    async with running(vad, asr, ring_s=45, stall_s=0.3, asr_patience_s=0.2) as mesh:
        with pytest.raises(UpstreamError, match="fills the ring"):
            await transcribe(mesh, silence(60))


async def test_the_pre_roll_is_a_setting() -> None:
    for pre_roll_ms in (0, 1000):
        vad, asr = script(4.0)
        async with running(vad, asr, pre_roll_ms=pre_roll_ms) as mesh:
            await transcribe(mesh, silence(6))
        [(first, _)] = asr.streams[0].audio
        assert first == round(3.95 * RATE) // 512 * 512 - 16 * pre_roll_ms


class BusyAsr(FakeAsr):
    """Says that the stream waits for its turn for as long as it has much to do."""

    free: asyncio.Event

    async def _answer(self, heard: Heard, certain: int, send: Transcribed) -> None:
        while not self.free.is_set():
            await send(asr_pb2.TranscribeResponse(queued=asr_pb2.Queued()))
            await asyncio.sleep(0.05)
        await super()._answer(heard, certain, send)


async def test_a_recogniser_that_is_busy_is_waited_for() -> None:
    """O2. Giving it the same audio again would make it busier."""
    words = words_at(1.0, 2.0)
    vad, asr = FakeVad(spans_of(words)), BusyAsr(words)
    asr.free = asyncio.Event()
    async with running(vad, asr, stall_s=0.3, asr_patience_s=0.2) as mesh:
        run = asyncio.create_task(transcribe(mesh, silence(8)))
        await asyncio.sleep(1.0)  # three times what one that hangs is given
        asr.free.set()
        session = await run
    assert list(session.transcript.words) == words
    assert session.transcript.notices == []
    assert len(asr.streams) == 1


async def test_recordings_are_waited_for_longer_than_live_audio() -> None:
    async with running(*script(), stall_s=3, file_stall_s=77) as mesh:
        stalls = {}
        for pace in Pace:
            async with mesh.gateway.session(config(pace=pace)) as session:
                stalls[pace] = session._limits.asr_patience.stall_s
    assert stalls == {Pace.LIVE: 3, Pace.FILE: 77}


async def test_metrics_count_what_happened() -> None:
    """P28."""

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def values() -> list[float]:
        return [
            value("voxmesh_sessions_ended_total", protocol="counted", outcome="finished"),
            value("voxmesh_sessions_ended_total", protocol="counted", outcome="upstream_failed"),
            value("voxmesh_sessions", protocol="counted"),
            value("voxmesh_stage_restarts_total", stage="asr", reason="unavailable"),
            value("voxmesh_audio_seconds_total", stage="gateway"),
            value("voxmesh_commit_lag_seconds_count"),
        ]

    before = values()
    vad, asr = script(1.0, 2.0, 3.0)
    asr.faults.once = {round(2.2 * RATE): DeviceError("lost")}
    async with running(vad, asr, asr_patience_s=0.1) as mesh:
        await transcribe(mesh, silence(5), protocol="counted")
        await mesh.asr_replica.kill()
        with pytest.raises(UpstreamError):
            await transcribe(mesh, silence(1), protocol="counted")
    finished, failed, still_open, restarts, audio_s, commits = (
        after - earlier for after, earlier in zip(values(), before, strict=True)
    )
    assert (finished, failed, still_open) == (1, 1, 0)
    assert restarts >= 2
    assert audio_s == pytest.approx(6)
    assert commits == 3
