import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from services.common.errors import DeviceError, OverloadedError, UpstreamError
from services.gateway.session import Session
from services.gateway.session_config import Diarization, Pace, SessionConfig
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeDiarizer,
    FakeVad,
    Mesh,
    running,
    silence,
    spans_of,
    words_at,
)

WORDS = words_at(0.5, 1.0, 1.5, 4.0, 4.5, 5.0, 8.0, 8.5)
TURNS = ((1, 0, 2 * RATE), (2, 7 * RATE // 2, 6 * RATE), (1, 7 * RATE, 10 * RATE))
SPOKEN = [1, 1, 1, 2, 2, 2, 1, 1]
FAST: dict[str, Any] = {
    "hedge_s": 0.5,
    "open_timeout_s": 1.0,
    "stall_s": 0.5,
    "diarizer_patience_s": 1.0,
}


def stages() -> tuple[FakeVad, FakeAsr, FakeDiarizer]:
    return FakeVad(spans_of(WORDS)), FakeAsr(WORDS), FakeDiarizer(TURNS)


async def paced(duration_s: float, *, factor: float = 20) -> AsyncIterator[bytes]:
    """Audio at many times the pace of speech."""
    async for block in silence(duration_s):
        yield block
        await asyncio.sleep(0.1 / factor)


async def received(session: Session, audio_s: float) -> None:
    """Wait until so much audio is there."""

    def enough() -> bool:
        return session.transcript.received_sample >= audio_s * RATE

    await session.changed(1_000_000, timeout_s=30, due=enough)
    assert enough()


async def said_in(
    mesh: Mesh,
    audio: AsyncIterator[bytes],
    *,
    during: Callable[[Session], object] | None = None,
    pace: Pace = Pace.LIVE,
    diarization: Diarization | None = Diarization(),  # noqa: B008 -- it never changes
) -> Session:
    config = SessionConfig("s", "test", language_code="en", pace=pace, diarization=diarization)
    async with mesh.gateway.session(config) as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(session.run(audio))
        if during is not None:
            during(session)
    assert [word.text for word in session.transcript.words] == [word.text for word in WORDS]
    return session


def speakers(session: Session) -> list[int]:
    return [word.speaker for word in session.transcript.words]


def troubles(session: Session) -> list[tuple[str, str]]:
    return [(notice.stage, notice.code) for notice in session.transcript.notices]


@pytest.mark.parametrize("pace", Pace)
async def test_every_word_has_the_speaker_in_whose_turn_it_is(pace: Pace) -> None:
    async with running(*stages()) as mesh:
        session = await said_in(mesh, silence(10), pace=pace)
    assert speakers(session) == SPOKEN
    assert not troubles(session)


@pytest.mark.parametrize("pace", Pace)
async def test_words_that_come_after_the_diarizer_is_done_are_no_less_said(pace: Pace) -> None:
    """P2."""
    vad, asr, diarizer = stages()
    asr.certain_after = 20 * RATE

    async def recognise_last(session: Session) -> None:
        await received(session, 10)
        async with asyncio.timeout(20):
            await diarizer.left.wait()
        asr.faults.gate.set()

    asr.faults.gate.clear()
    async with running(vad, asr, diarizer) as mesh:
        tasks: list[asyncio.Task[None]] = []
        session = await said_in(
            mesh,
            silence(10),
            pace=pace,
            during=lambda s: tasks.append(asyncio.create_task(recognise_last(s))),
        )
    assert speakers(session) == SPOKEN


async def test_words_that_are_certain_stay_when_the_recogniser_is_lost() -> None:
    vad, asr, diarizer = stages()
    asr.faults.always[8 * RATE] = DeviceError("it died")
    diarizer.faults.gate.clear()
    async with running(vad, asr, diarizer, **FAST, asr_patience_s=0.2) as mesh:
        config = SessionConfig("s", "test", language_code="en", diarization=Diarization())
        async with mesh.gateway.session(config) as session:
            with pytest.raises(UpstreamError):
                await session.run(silence(10))
    assert [word.text for word in session.transcript.words] == [w.text for w in WORDS[:6]]


async def test_nobody_is_told_apart_who_was_not_to_be() -> None:
    vad, asr, diarizer = stages()
    async with running(vad, asr, diarizer) as mesh:
        session = await said_in(mesh, silence(10), diarization=None)
    assert speakers(session) == [0] * len(WORDS)
    assert not diarizer.opens


async def test_without_a_diarizer_everybody_is_one_speaker_and_the_session_says_so() -> None:
    """F8."""
    vad, asr, _ = stages()
    async with running(vad, asr) as mesh:
        session = await said_in(mesh, silence(10))
    assert speakers(session) == [1] * len(WORDS)
    assert troubles(session) == [("diarizer", "DEGRADED")]


async def test_the_diarizer_is_told_what_is_known_of_the_speakers() -> None:
    vad, asr, diarizer = stages()
    wanted = Diarization(5, 3, (bytes(4 * RATE),))
    async with running(vad, asr, diarizer) as mesh:
        await said_in(mesh, silence(10), diarization=wanted)
    config = diarizer.opens[0].config
    assert (config.max_speakers, config.num_speakers) == (5, 3)
    assert list(config.enrolled) == [bytes(4 * RATE)]


@pytest.mark.parametrize("at", [RATE, 9 * RATE // 2, 8 * RATE])
async def test_speakers_keep_their_numbers_when_a_diarizer_dies(at: int) -> None:
    """F8."""
    vad, asr, diarizer = stages()
    diarizer.faults.once[at] = DeviceError("it died")
    async with running(vad, asr, diarizer, **FAST, speaker_wait_s=5.0) as mesh:
        session = await said_in(mesh, paced(10))
    assert speakers(session) == SPOKEN
    assert troubles(session) == [("diarizer", "DEGRADED"), ("diarizer", "RECOVERED")]
    assert len(diarizer.opens) == 2


async def test_speakers_keep_their_numbers_when_a_diarizer_is_asked_to_go() -> None:
    """D1."""
    vad, asr, diarizer = stages()

    async def leave(session: Session) -> None:
        await received(session, 5)
        diarizer.departure.leave()

    async with running(vad, asr, diarizer, speaker_wait_s=5.0) as mesh:
        tasks: list[asyncio.Task[None]] = []
        session = await said_in(
            mesh, paced(10), during=lambda s: tasks.append(asyncio.create_task(leave(s)))
        )
    assert speakers(session) == SPOKEN
    assert len(diarizer.opens) == 2


async def test_a_diarizer_that_dies_for_good_costs_speakers_and_no_words() -> None:
    """F8."""
    vad, asr, diarizer = stages()
    diarizer.faults.always[4 * RATE] = DeviceError("it dies")
    async with running(vad, asr, diarizer, **FAST, speaker_wait_s=0.2) as mesh:
        session = await said_in(mesh, paced(10, factor=5))
    assert speakers(session)[:3] == [1, 1, 1]
    assert troubles(session)[-1] == ("diarizer", "DEGRADED")


async def test_a_diarizer_that_has_no_room_refuses_nobody() -> None:
    vad, asr, diarizer = stages()
    diarizer.faults.at_open = [OverloadedError("no room")] * 100
    async with running(vad, asr, diarizer, **FAST, speaker_wait_s=0.2) as mesh:
        session = await said_in(mesh, paced(10, factor=5))
    assert len(speakers(session)) == len(WORDS)


async def test_words_wait_for_a_diarizer_that_hangs_no_longer_than_they_may() -> None:
    """F8."""
    vad, asr, diarizer = stages()
    diarizer.faults.gate.clear()
    seen: list[int] = []

    async def watch(session: Session) -> None:
        await received(session, 9.9)
        seen.append(len(session.transcript.words))

    async with running(vad, asr, diarizer, speaker_wait_s=0.1, stall_s=60) as mesh:
        config = SessionConfig("s", "test", language_code="en", diarization=Diarization())
        async with mesh.gateway.session(config) as session:
            run = asyncio.create_task(session.run(paced(10, factor=5)))
            await watch(session)
            diarizer.faults.gate.set()
            await run
    assert seen[0] >= 6


async def test_a_live_session_goes_on_without_a_diarizer_that_fills_its_ring() -> None:
    """F8."""
    words = words_at(*range(90))
    vad, asr, diarizer = FakeVad([(0, 90 * RATE)]), FakeAsr(words), FakeDiarizer()
    diarizer.faults.gate.clear()
    async with running(vad, asr, diarizer, ring_s=45, stall_s=60) as mesh:
        config = SessionConfig("s", "test", language_code="en", diarization=Diarization())
        async with mesh.gateway.session(config) as session, asyncio.timeout(30):
            await session.run(silence(80))
    assert len(session.transcript.words) == 80
    assert troubles(session) == [("diarizer", "DEGRADED")]
    assert session.transcript.received_sample == 80 * RATE


async def test_a_flush_is_answered_when_words_have_their_speakers() -> None:
    vad, asr, diarizer = stages()

    async def audio() -> AsyncIterator[bytes]:
        async for block in silence(5.5):
            yield block
        await flushed.wait()
        async for block in silence(4.5):
            yield block

    flushed = asyncio.Event()
    found: list[Sequence[int]] = []

    async def flush(session: Session) -> None:
        await received(session, 5.5)
        await session.flush()
        found.append(speakers(session))
        flushed.set()

    async with running(vad, asr, diarizer) as mesh:
        tasks: list[asyncio.Task[None]] = []
        await said_in(mesh, audio(), during=lambda s: tasks.append(asyncio.create_task(flush(s))))
    assert found == [SPOKEN[:6]]


async def test_a_session_that_ends_early_leaves_no_stream_behind() -> None:
    vad, asr, diarizer = stages()
    async with running(vad, asr, diarizer) as mesh:
        config = SessionConfig("s", "test", language_code="en", diarization=Diarization())
        async with mesh.gateway.session(config) as session:
            run = asyncio.create_task(session.run(paced(10, factor=1)))
            await received(session, 2)
            assert diarizer.live == 1
            run.cancel()
            with suppress(asyncio.CancelledError):
                await run
        async with asyncio.timeout(20):
            await diarizer.left.wait()
    assert not diarizer.live
