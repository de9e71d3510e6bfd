"""``Converse``: the gateway's own protocol, whatever carries its messages."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

from services.common import telemetry
from services.common.audio import BYTES_PER_SAMPLE
from services.common.errors import (
    ClientLeftError,
    InvalidRequestError,
    NotFoundError,
    SupersededError,
)
from services.common.timeline import SAMPLE_RATE_HZ
from services.gateway.decoder import (
    AudioFormat,
    ContainerFormat,
    Encoding,
    RawFormat,
    open_decoder,
)
from services.gateway.gateway import Gateway
from services.gateway.live_session import LiveSession
from services.gateway.protocols.converse_view import Captions
from services.gateway.session import SessionConfig, Task
from services.gateway.session_config import MAX_SPEAKERS, Diarization, Policy
from services.gateway.tasks import first_error
from services.gateway.throttle import Throttle
from services.gateway.transcript import Transcript
from voxmesh.gateway.v1 import gateway_pb2 as pb

_NEWS_S = 1.0
"""Between two messages that say how far behind the transcript is, or how much audio has come."""
_MAX_NAME_CHARS = 100
_MAX_LANGUAGE_CHARS = 64
_SPEECH_BYTES_PER_S = SAMPLE_RATE_HZ * BYTES_PER_SAMPLE

_ENCODINGS: dict[int, Encoding] = {
    pb.ENCODING_LINEAR16: "linear16",
    pb.ENCODING_LINEAR32: "linear32",
    pb.ENCODING_FLOAT32: "float32",
    pb.ENCODING_MULAW: "mulaw",
    pb.ENCODING_ALAW: "alaw",
}
_TASKS = {
    pb.TASK_UNSPECIFIED: Task.TRANSCRIBE,
    pb.TASK_TRANSCRIBE: Task.TRANSCRIBE,
    pb.TASK_TRANSLATE: Task.TRANSLATE,
}
_POLICIES = {
    pb.POLICY_UNSPECIFIED: None,
    pb.POLICY_LOCAL_AGREEMENT: Policy.LOCAL_AGREEMENT,
    pb.POLICY_ALIGN_ATT: Policy.ALIGN_ATT,
    pb.POLICY_EITHER: Policy.EITHER,
}

Requests = AsyncIterator[pb.ConverseRequest]
Send = Callable[[pb.ConverseResponse], Awaitable[None]]


async def converse(
    gateway: Gateway, requests: Requests, send: Send, *, protocol: str, caller: str
) -> None:
    """Serve one connection from its first message to its end.

    Args:
        gateway: What serves the sessions.
        requests: What the client says; their end is the end of the connection.
        send: Says something to the client; waits while it is slow.
        protocol: What carries the messages, for metrics.
        caller: Name of the key that the client presented; empty: none was needed.

    Raises:
        MeshError: The session cannot be had, or cannot go on.
        ClientLeftError: The client left before the end was said.

    """
    first = await _first(requests, gateway.settings.idle_s)
    if first.WhichOneof("payload") == "resume":
        live = gateway.resumption.find(first.resume.token, caller)
        telemetry.SESSIONS_RESUMED.labels(protocol).inc()
        _check_progress(first.resume, live.session.transcript)
        await _Connection(gateway, live, send, protocol, first.resume).hold(requests)
        return
    async with AsyncExitStack() as resources:
        live = await _open(gateway, first.open, resources, protocol=protocol, caller=caller)
        if first.open.resumable:
            token = gateway.resumption.keep(live, caller, resources.pop_all())
            start = pb.Resume(token=token)
            await _Connection(gateway, live, send, protocol, start).hold(requests)
            return
        with first_error():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(live.run(gateway.closing), name="converse.session")
                await _Connection(gateway, live, send, protocol, pb.Resume()).hold(requests)


async def _first(requests: Requests, idle_s: float) -> pb.ConverseRequest:
    try:
        async with asyncio.timeout(idle_s):
            request = await anext(requests)
    except StopAsyncIteration:
        raise ClientLeftError from None
    except TimeoutError:
        raise InvalidRequestError("no message has come in time") from None
    if request.WhichOneof("payload") not in {"open", "resume"}:
        raise InvalidRequestError("the first message must be open or resume")
    return request


async def _open(
    gateway: Gateway, opening: pb.Open, resources: AsyncExitStack, *, protocol: str, caller: str
) -> LiveSession:
    frame_threshold = opening.frame_threshold if opening.HasField("frame_threshold") else None
    config = SessionConfig(
        session_id=uuid.uuid4().hex,
        protocol=protocol,
        caller=caller,
        language_code=opening.language_code,
        model=opening.model,
        task=_task(opening),
        prompt=opening.prompt,
        hotwords=tuple(opening.hotwords),
        policy=_policy(opening),
        frame_threshold=frame_threshold,
        diarization=_diarization(opening),
        targets=_targets(opening.translate_into),
    )
    audio_format = _format(opening)
    session = await resources.enter_async_context(gateway.session(config))
    decoder = await resources.enter_async_context(
        open_decoder(audio_format, max_duration_s=gateway.settings.max_session_s)
    )
    live = LiveSession(session, decoder)
    for number, speaker in enumerate(opening.diarization.enrolled, 1):
        live.names[number] = _checked_name(speaker.name)
    return live


class _Connection:
    """One connection of a client: one task receives, one sends."""

    def __init__(
        self,
        gateway: Gateway,
        live: LiveSession,
        send: Send,
        protocol: str,
        start: pb.Resume,
    ) -> None:
        """Prepare to serve a client that has so much of the transcript."""
        self._gateway = gateway
        self._live = live
        self._session = live.session
        self._send = send
        self._protocol = protocol
        self._token = start.token
        self._captions = Captions(live.session.transcript, start, names=live.names)
        self._told_bytes = 0
        self._throttle = Throttle(gateway.settings.max_messages_per_s)
        self._turn = asyncio.Lock()
        """Two tasks send; messages that belong together stay together."""

    async def hold(self, requests: Requests) -> None:
        """Serve the client to the end of the connection.

        Args:
            requests: What it says after its first message.

        Raises:
            MeshError: The session cannot go on, or not here.
            ClientLeftError: The client left.

        """
        live = self._live
        async with live.connection() as wanted:
            if live.failure is not None:
                await self._tell()
                raise live.failure
            await self._say(pb.ConverseResponse(opened=self._opened()))
            with first_error():
                async with asyncio.TaskGroup() as tasks:
                    receive = tasks.create_task(self._receive(requests), name="converse.receive")
                    leave = tasks.create_task(_leave(wanted), name="converse.leave")
                    close = tasks.create_task(self._gateway.closing.wait(), name="converse.close")
                    drain = tasks.create_task(self._announce_end(), name="converse.drain")
                    await self._show()
                    if self._session.transcript.finished:
                        # A resumed session may have ended before. It is ``finish`` that is
                        # answered: gRPC clients lose what comes while they still send.
                        await asyncio.wait((receive, close), return_when=asyncio.FIRST_COMPLETED)
                    for task in (receive, leave, close, drain):
                        task.cancel()
            if live.failure is not None:
                raise live.failure
            if not self._session.transcript.finished:
                raise NotFoundError("the session has not waited so long")
            await self._say(pb.ConverseResponse(finished=pb.Finished()))

    def _opened(self) -> pb.Opened:
        config = self._session.config
        opened = pb.Opened(
            session_id=config.session_id,
            model=config.model,
            resume_token=self._token,
            received_bytes=self._live.received_bytes,
        )
        if self._token:
            opened.resume_within.FromNanoseconds(round(self._gateway.settings.resume_s * 1e9))
        return opened

    async def _announce_end(self) -> None:
        """Tell the client when the gateway is about to stop."""
        await self._gateway.draining.wait()
        notice = pb.Notice(stage="gateway", code="DRAINING", message="the gateway is stopping")
        await self._say(pb.ConverseResponse(notice=notice))

    async def _receive(self, requests: Requests) -> None:
        """Take in what the client says to its ``finish``.

        Raises:
            ClientLeftError: It left without.
            InvalidRequestError: It said something that has no place here.

        """
        while True:
            try:
                async with asyncio.timeout(self._gateway.settings.idle_s):
                    request = await anext(requests)
            except StopAsyncIteration:
                raise ClientLeftError from None
            except TimeoutError:
                break
            await self._throttle.admit()
            match request.WhichOneof("payload"):
                case "audio":
                    await self._live.write(request.audio)
                case "flush":
                    await self._flush(request.flush.flush_id)
                case "finish":
                    break
                case "name_speaker":
                    self._name(request.name_speaker)
                case "translate_into":
                    self._session.translate_into(_targets(request.translate_into))
                case "open" | "resume":
                    raise InvalidRequestError("a second open")
                case None:
                    raise InvalidRequestError("an empty message")
        self._live.close()

    def _name(self, wanted: pb.NameSpeaker) -> None:
        if not 1 <= wanted.speaker <= MAX_SPEAKERS:
            raise InvalidRequestError(f"there can be no speaker {wanted.speaker}")
        self._live.names[wanted.speaker] = _checked_name(wanted.name)

    async def _flush(self, flush_id: int) -> None:
        await self._live.flush()
        await self._tell()
        await self._say(pb.ConverseResponse(flushed=pb.Flushed(flush_id=flush_id)))

    async def _show(self) -> None:
        """Send what changes, as it changes, until the session is over."""
        clock = asyncio.get_running_loop().time
        over = self._live.over
        seen = -1
        news_at = clock() + _NEWS_S
        while not over.is_set():
            if self._session.ended:
                await over.wait()
            seen = await self._session.changed(seen, timeout_s=max(0, news_at - clock()))
            await self._tell()
            if clock() >= news_at:
                news_at = clock() + _NEWS_S
                for response in self._captions.lag():
                    await self._say(response)
                await self._acknowledge()
        await self._tell()

    async def _acknowledge(self) -> None:
        """Say how much audio the client need not keep any more."""
        received = self._live.received_bytes
        if self._token and received != self._told_bytes:
            self._told_bytes = received
            await self._say(pb.ConverseResponse(received=pb.Received(num_bytes=received)))

    async def _tell(self) -> None:
        async with self._turn:
            for response in self._captions.news():
                await self._write(response)

    async def _say(self, response: pb.ConverseResponse) -> None:
        async with self._turn:
            await self._write(response)

    async def _write(self, response: pb.ConverseResponse) -> None:
        await self._send(response)
        telemetry.MESSAGES_SENT.labels(self._protocol).inc()
        telemetry.BYTES_SENT.labels(self._protocol).inc(response.ByteSize())


async def _leave(wanted: asyncio.Event) -> None:
    await wanted.wait()
    raise SupersededError("another connection goes on with the session")


def _format(opening: pb.Open) -> AudioFormat:
    if opening.encoding == pb.ENCODING_UNSPECIFIED:
        return ContainerFormat()
    if (encoding := _ENCODINGS.get(opening.encoding)) is None:
        raise InvalidRequestError(f"unknown encoding {opening.encoding}")
    return RawFormat(encoding, opening.sample_rate_hz or SAMPLE_RATE_HZ, opening.channels or 1)


def _task(opening: pb.Open) -> Task:
    if (task := _TASKS.get(opening.task)) is None:
        raise InvalidRequestError(f"unknown task {opening.task}")
    return task


def _policy(opening: pb.Open) -> Policy | None:
    if opening.policy not in _POLICIES:
        raise InvalidRequestError(f"unknown policy {opening.policy}")
    return _POLICIES[opening.policy]


def _diarization(opening: pb.Open) -> Diarization | None:
    if not opening.HasField("diarization"):
        return None
    wanted = opening.diarization
    for name in ("max_speakers", "num_speakers"):
        if not 0 <= getattr(wanted, name) <= MAX_SPEAKERS:
            raise InvalidRequestError(
                f"diarization.{name} is {getattr(wanted, name)}, not 0 to {MAX_SPEAKERS}"
            )
    for number, speaker in enumerate(wanted.enrolled, 1):
        if len(speaker.speech) % 2 or not 1 <= len(speaker.speech) / _SPEECH_BYTES_PER_S <= 30:
            raise InvalidRequestError(
                f"diarization.enrolled: speaker {number} has {len(speaker.speech)} bytes of speech,"
                " not 1 to 30 s of 16 kHz s16le"
            )
    enrolled = tuple(speaker.speech for speaker in wanted.enrolled)
    return Diarization(wanted.max_speakers, wanted.num_speakers, enrolled)


def _targets(wanted: pb.TranslateInto) -> tuple[str, ...]:
    for code in wanted.language_codes:
        if not 1 <= len(code) <= _MAX_LANGUAGE_CHARS:
            raise InvalidRequestError(
                f"translate_into.language_codes has one of {len(code)} characters, "
                f"not 1 to {_MAX_LANGUAGE_CHARS}"
            )
    return tuple(wanted.language_codes)


def _check_progress(resumed: pb.Resume, transcript: Transcript) -> None:
    """See whether a client can have so much of a transcript.

    Raises:
        InvalidRequestError: It is more than there is.

    """
    if not 0 <= resumed.num_words <= len(transcript.words):
        raise InvalidRequestError(f"the transcript has no {resumed.num_words} words")
    for target, num_pieces in resumed.num_pieces.items():
        translation = transcript.translations.get(target)
        if not 0 <= num_pieces <= (len(translation.pieces) if translation else 0):
            raise InvalidRequestError(f"the translation into {target!r} has no {num_pieces} pieces")


def _checked_name(name: str) -> str:
    if len(name) > _MAX_NAME_CHARS:
        raise InvalidRequestError(f"a speaker's name has at most {_MAX_NAME_CHARS} characters")
    return name
