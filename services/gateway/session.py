"""One live session: its audio, its stages, its transcript."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from services.common import telemetry
from services.common.audio import BYTES_PER_SAMPLE
from services.common.errors import MeshError, StreamTooLongError, UpstreamError
from services.common.ring import Ring
from services.common.timeline import SAMPLE_RATE_HZ, samples, seconds
from services.common.words import Word
from services.gateway.diarized import Diarized
from services.gateway.link import Link
from services.gateway.recovery import Patience
from services.gateway.route import Heard, Route, RoutedAudio
from services.gateway.session_config import Pace, SessionConfig, Task
from services.gateway.speech_map import SpeechMap
from services.gateway.stage import Stage
from services.gateway.tasks import Bell, first_error
from services.gateway.transcript import Notice, Scores, Transcript
from services.gateway.translated import Translated
from services.gateway.upstream import AsrUpstream, VadUpstream
from voxmesh.asr.v1 import asr_pb2
from voxmesh.vad.v1 import vad_pb2

__all__ = ["Pace", "Session", "SessionConfig", "SessionLimits", "Task"]

log = structlog.get_logger(__name__)

_VadStage: TypeAlias = Stage[Heard, vad_pb2.DetectRequest, vad_pb2.DetectResponse]
_AsrStage: TypeAlias = Stage[Heard, asr_pb2.TranscribeRequest, asr_pb2.TranscribeResponse]

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
    diarizer_patience: Patience
    word_wait_s: float
    """How long a word waits for its speaker, in seconds."""
    translator_patience: Patience
    translation_wait_s: float
    """How long a flush and the end wait for translations, in seconds."""


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
        diarizer: Link | None = None,
        translator: Link | None = None,
    ) -> None:
        """Create a session; ``run`` starts it.

        Args:
            config: What the client asked for, its model and language resolved.
            limits: What the session may use.
            vad: The VAD.
            asr: The pool that serves the model.
            diarizer: The diarizer, if there is one.
            translator: The translator, if there is one.

        Raises:
            InvalidRequestError: It is to be translated into too many languages, or into one without
                a translator.

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
        self._vad: _VadStage = Stage(
            VadUpstream(vad.channel, config, self._speech),
            RoutedAudio(self._lane, self._ring),
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
        self._asr: _AsrStage = Stage(
            self._recogniser,
            RoutedAudio(self._speech.route, self._ring),
            limits.asr_patience,
            quarantine=asr.quarantine,
            unanswered_samples=_UNANSWERED_SAMPLES[config.pace],
            moved=self._moved,
            notify=self._notify,
        )
        self._said = asyncio.Event()
        """Set when the recogniser has said everything."""
        self._diarized: Diarized | None = None
        if config.diarization is not None:
            self._diarized = Diarized(
                config,
                self.transcript,
                diarizer,
                self._speech.route,
                self._ring,
                patience=limits.diarizer_patience,
                unanswered_samples=_UNANSWERED_SAMPLES[config.pace],
                word_wait_s=limits.word_wait_s,
                moved=self._moved,
                notify=self._notify,
            )
        self._written = asyncio.Event()
        """Set when every word is in the transcript."""
        self._translated = Translated(
            config,
            self.transcript,
            translator,
            patience=limits.translator_patience,
            unanswered_samples=_UNANSWERED_SAMPLES[config.pace],
            moved=self._changed.ring,
            notify=self._notify,
        )

    async def admit(self) -> None:
        """Find a recogniser for the session, and ask the translator whether it can translate.

        Raises:
            OverloadedError: No recogniser has room.
            MeshError: The recogniser refuses for good, or the translator lacks a language.

        """
        with (
            structlog.contextvars.bound_contextvars(session_id=self.config.session_id),
            first_error(),
        ):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._asr.admit(), name="session.admit")
                tasks.create_task(self._translated.admit(), name="session.admit_translators")

    def close(self) -> None:
        """Let go of what ``admit`` found, if ``run`` was never called."""
        self._asr.close()
        self._translated.close()

    def translate_into(self, targets: Sequence[str]) -> None:
        """Translate what is said from now on into these languages and no others.

        Raises:
            InvalidRequestError: There are too many of them, or there is no translator.

        """
        self._translated.into(targets)

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
                    tasks.create_task(self._recognise(), name="session.asr")
                    tasks.create_task(self._tell_apart(), name="session.diarizer")
                    translate = self._translated.run(self._written, self._limits.translation_wait_s)
                    tasks.create_task(translate, name="session.translators")
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
        self._wake()
        while self._asr.flushed_sample < mark and not self.ended:
            await self._answered.wait()
        if self._diarized is not None and not self.ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.word_wait_s):
                    while not self._diarized.has_decided(mark):
                        await self._answered.wait()
            self._diarized.release()
            self._moved()
        if not self.ended:
            await self._translated.flush(self._limits.translation_wait_s)

    async def _recognise(self) -> None:
        await self._asr.run()
        self._said.set()

    async def _tell_apart(self) -> None:
        """Follow the diarizer, if there is one, to the last word."""
        if self._diarized is not None:
            await self._diarized.run(self._said)
        else:
            await self._said.wait()
        self._written.set()

    def _wake(self) -> None:
        """Who hears speech may hear more of it."""
        self._asr.wake()
        if self._diarized is not None:
            self._diarized.wake()

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
            self._wake()
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
                    if not self._is_held_up_by_diarizer(num_samples):
                        await self._room.wait()
        except TimeoutError:
            raise UpstreamError("the audio that the stages hold on to fills the ring") from None

    def _is_held_up_by_diarizer(self, num_samples: int) -> bool:
        """Give up a diarizer for which live words would have to wait; whether there was one."""
        if self._diarized is None or self.config.pace is not Pace.LIVE:
            return False
        held = self._diarized.needed_sample
        freed = self._needed_sample() - self._ring.first_sample
        if held is None or held >= self._needed_sample() or self._ring.room + freed < num_samples:
            return False
        self._diarized.give_up("the diarizer is too far behind")
        self._forget()
        return True

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
        self._wake()

    def _moved(self) -> None:
        """A stage has answered: pass on what is known now."""
        self._speech.follow_words()
        self._wake()
        self._answered.ring()
        self._forget()
        self._room.ring()
        if self._diarized is not None:
            self._diarized.settle(self._asr.flushed_sample)
        self.transcript.decoded_sample = self._decoded_sample()
        self.transcript.decide(self._asr.flushed_sample)
        self.transcript.settle(self._settled_sample())
        self._translated.follow()
        progress = (self.transcript.revision, self.transcript.heard_sample)
        if progress != self._announced:
            self._announced = progress
            self._changed.ring()

    def _forget(self) -> None:
        """Let go of what no stage will need again."""
        routed, needed = self._asr.replay_sample, self._needed_sample()
        if self._diarized is not None:
            told_apart = self._diarized.replay_sample
            routed = min(routed, routed if told_apart is None else told_apart)
            wanted = self._diarized.needed_sample
            needed = min(needed, needed if wanted is None else wanted)
        self._lane.forget(self._vad.replay_sample)
        self._speech.route.forget(routed)
        self._ring.release(needed)

    def _needed_sample(self) -> int:
        """Position from which words may need the audio."""
        heard = self._ring.end_sample
        if not self._vad_lost:
            heard = self._lane.first_audio(self._vad.replay_sample)
        return min(heard, self._speech.route.first_audio(self._asr.replay_sample))

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

    def _committed(self, words: Sequence[Word], scores: Scores) -> None:
        if self._diarized is not None:
            self._diarized.commit(words, scores)
        else:
            self.transcript.commit(words, scores)
        if self.config.pace is Pace.LIVE:
            received = self._ring.end_sample
            for word in words:
                lag_s = seconds(max(0, received - word.end_sample))
                telemetry.COMMIT_LAG_SECONDS.observe(lag_s)
