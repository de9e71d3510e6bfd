"""One live session: its audio, its stages, its transcript."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from services.common import telemetry
from services.common.audio import BYTES_PER_SAMPLE
from services.common.errors import MeshError, StreamTooLongError, UpstreamError
from services.common.ring import Ring
from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from services.common.words import Word
from services.gateway.link import Link
from services.gateway.recovery import Patience
from services.gateway.route import Route
from services.gateway.session_config import Pace, SessionConfig, Task
from services.gateway.speech_map import SpeechMap
from services.gateway.stage import Stage
from services.gateway.tasks import Bell, first_error
from services.gateway.transcript import Notice, Transcript
from services.gateway.upstream import AsrUpstream, VadUpstream

__all__ = ["Pace", "Session", "SessionConfig", "SessionLimits", "Task"]

log = structlog.get_logger(__name__)

_BLOCK_BYTES = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE
"""Audio enters the ring in blocks of a second at most, so that little room is enough."""

_UNANSWERED_SAMPLES = {Pace.LIVE: samples(5), Pace.FILE: samples(40)}
"""Audio that a stage may keep to itself: a window of a recording is 30 s long."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session may use."""

    ring_samples: int
    """Audio kept for a stage that has to start again."""
    max_samples: int
    """The longest session."""
    pre_roll_samples: int
    """Audio before the start of speech that the recogniser hears."""
    vad_patience: Patience
    asr_patience: Patience


class Session:
    """One live session.

    ``run`` is called once; ``changed`` and ``flush`` while it runs, by any number of readers.
    """

    def __init__(
        self,
        config: SessionConfig,
        limits: SessionLimits,
        *,
        vad: Link,
        asr: Link,
    ) -> None:
        """Create a session; ``run`` starts it.

        Args:
            config: What the client asked for, its model and language resolved.
            limits: What the session may use.
            vad: The VAD.
            asr: The pool that serves the model.

        """
        self.config = config
        self.transcript = Transcript()
        self.ended = False
        """Whether ``run`` is over, whatever came of it."""
        self._limits = limits
        self._ring = Ring(limits.ring_samples)
        self._room = Bell()
        self._changed = Bell()
        self._answered = Bell()
        self._announced = (0, 0)
        """What of the transcript readers have been woken for."""
        self._fed = asyncio.Event()
        self._lane = Route()
        self._speech = SpeechMap(
            self.transcript,
            pre_roll_samples=limits.pre_roll_samples,
            live=config.pace is Pace.LIVE,
        )
        self._vad = Stage(
            VadUpstream(vad.channel, config, self._speech),
            self._lane,
            self._ring,
            limits.vad_patience,
            quarantine=vad.quarantine,
            unanswered_samples=_UNANSWERED_SAMPLES[Pace.LIVE],
            moved=self._moved,
            notify=self._notify,
        )
        self._vad_lost = False
        self._recogniser = AsrUpstream(
            asr.channel, config, self.transcript, committed=self._committed
        )
        self._asr = Stage(
            self._recogniser,
            self._speech.route,
            self._ring,
            limits.asr_patience,
            quarantine=asr.quarantine,
            unanswered_samples=_UNANSWERED_SAMPLES[config.pace],
            moved=self._moved,
            notify=self._notify,
        )

    async def admit(self) -> None:
        """Find a recogniser for the session.

        Raises:
            OverloadedError: None has room.
            MeshError: The recogniser refuses for good.

        """
        with structlog.contextvars.bound_contextvars(session_id=self.config.session_id):
            await self._asr.admit()

    def close(self) -> None:
        """Let go of what ``admit`` found, if ``run`` was never called."""
        self._asr.close()

    async def run(self, audio: AsyncIterator[bytes]) -> None:
        """Transcribe the audio; return when everything said is in ``transcript``.

        Args:
            audio: s16le 16 kHz mono, cut anywhere; its end is the end of the audio. It is read only
                as fast as the session can keep it.

        Raises:
            MeshError: The session cannot go on; what is in ``transcript`` stays true.

        """
        outcome = "left"
        self._recogniser.promised = True
        try:
            with (
                structlog.contextvars.bound_contextvars(session_id=self.config.session_id),
                telemetry.span(telemetry.Span.SESSION, self.config.session_id),
                first_error(),
            ):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._feed(audio), name="session.feed")
                    tasks.create_task(self._detect(), name="session.vad")
                    tasks.create_task(self._asr.run(), name="session.asr")
            self.transcript.finish()
            outcome = "finished"
        except MeshError as error:
            outcome = error.reason.lower()
            raise
        finally:
            self.ended = True
            self._changed.ring()
            self._answered.ring()
            telemetry.SESSIONS_ENDED.labels(self.config.protocol, outcome).inc()
            log.info(
                "session ended",
                session_id=self.config.session_id,
                protocol=self.config.protocol,
                outcome=outcome,
                audio_s=round(seconds(self._ring.end_sample), 1),
            )

    async def changed(
        self,
        seen: int,
        *,
        timeout_s: float | None = None,
        due: Callable[[], bool] = lambda: False,
    ) -> int:
        """Wait until ``transcript.revision`` passes ``seen``, and return it.

        Returns early when the session has ended, when the time is over, and when something is
        ``due`` because of how far the audio has been heard or settled.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (self.transcript.revision > seen or self.ended or due()):
                    await self._changed.wait()
        return self.transcript.revision

    async def flush(self) -> None:
        """Return when everything received so far is decided, or the session has ended."""
        received = self._ring.end_sample
        self._lane.add_mark()
        self._vad.wake()
        while self._vad.flushed_sample < received and not (self._vad_lost or self.ended):
            await self._answered.wait()
        mark = self._speech.flush(received)
        self._asr.wake()
        while self._asr.flushed_sample < mark and not self.ended:
            await self._answered.wait()

    async def _feed(self, audio: AsyncIterator[bytes]) -> None:
        half = b""
        async for data in audio:
            data = half + data
            whole = len(data) - len(data) % BYTES_PER_SAMPLE
            for start in range(0, whole, _BLOCK_BYTES):
                await self._append(data[start : min(start + _BLOCK_BYTES, whole)])
            half = data[whole:]
        self._fed.set()
        self._lane.complete()
        self._vad.wake()

    async def _append(self, pcm: bytes) -> None:
        num_samples = len(pcm) // BYTES_PER_SAMPLE
        if self._ring.end_sample + num_samples > self._limits.max_samples:
            raise StreamTooLongError(
                f"the audio is longer than {seconds(self._limits.max_samples):.0f} s"
            )
        await self._make_room(num_samples)
        self._ring.append(pcm)
        telemetry.AUDIO_SECONDS.labels("gateway").inc(seconds(num_samples))
        self.transcript.received_sample = self._ring.end_sample
        if self._vad_lost:
            self._speech.received(self._ring.end_sample)
            self._asr.wake()
            return
        self._lane.add_audio(self._ring.end_sample)
        self._vad.wake()

    async def _make_room(self, num_samples: int) -> None:
        """Wait until the stages let go of so much audio.

        Raises:
            UpstreamError: They answer, but never say that they could go on without it.

        """
        if self._ring.room >= num_samples:
            return
        patience = self._limits.asr_patience
        try:
            async with asyncio.timeout(patience.stall_s + patience.lost_s):
                while self._ring.room < num_samples:
                    await self._room.wait()
        except TimeoutError:
            raise UpstreamError("the audio that the stages hold on to fills the ring") from None

    async def _detect(self) -> None:
        """Follow the VAD to its end; without it, take everything for speech."""
        try:
            await self._vad.run()
        except MeshError as error:
            log.warning("going on without vad", session_id=self.config.session_id)
            self._notify(Notice("vad", "DEGRADED", str(error), retryable=False))
            self._vad_lost = True
            self._speech.listen_to_all()
            self._speech.received(self._ring.end_sample)
            self._moved()
            self._answered.ring()
            await self._fed.wait()
        self._speech.finish(self._ring.end_sample)
        self._asr.wake()

    def _moved(self) -> None:
        """A stage has answered: pass on what is known now."""
        self._speech.follow_words()
        self._asr.wake()
        self._answered.ring()
        self._ring.release(self._needed_sample())
        self._room.ring()
        self.transcript.decoded_sample = self._decoded_sample()
        self.transcript.decide(self._asr.flushed_sample)
        self.transcript.settle(self._settled_sample())
        progress = (self.transcript.revision, self.transcript.heard_sample)
        if progress != self._announced:
            self._announced = progress
            self._changed.ring()

    def _needed_sample(self) -> int:
        heard = self._ring.end_sample if self._vad_lost else self._vad.needed_sample
        return min(heard, self._asr.needed_sample)

    def _decoded_sample(self) -> int:
        """Position before which no speech waits for the recogniser."""
        route = self._speech.route
        undecoded = route.first_audio(self._asr.answered_sample)
        if undecoded == route.end_sample:
            undecoded = max(undecoded, self._speech.quiet_sample)
        return max(self.transcript.decoded_sample, undecoded)

    def _settled_sample(self) -> int:
        """Position before which the recogniser has said everything for good."""
        route = self._speech.route
        undecided = route.first_audio(max(self._asr.flushed_sample, self._asr.replay_sample))
        if undecided == route.end_sample:
            undecided = max(undecided, self._speech.quiet_sample)
        return undecided

    def _notify(self, notice: Notice) -> None:
        self.transcript.notify(notice)
        self._changed.ring()

    def _committed(self, words: Sequence[Word]) -> None:
        if self.config.pace is Pace.LIVE:
            received = self._ring.end_sample
            for word in words:
                lag_s = seconds(max(0, received - word.end_sample))
                telemetry.COMMIT_LAG_SECONDS.observe(lag_s)
