"""``GatewayService`` over gRPC: the gateway's own protocol."""

import asyncio
import uuid
from collections.abc import AsyncIterator

from google.protobuf.duration_pb2 import Duration

from services.common import telemetry
from services.common.errors import ClientLeftError, InvalidRequestError, UnauthenticatedError
from services.common.rpc import Metadata, Send, bidi
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import text_of
from services.gateway.auth import Keys, from_authorization
from services.gateway.decoder import (
    AudioFormat,
    ContainerFormat,
    Decoder,
    Encoding,
    RawFormat,
    open_decoder,
)
from services.gateway.gateway import Gateway
from services.gateway.session import Session, SessionConfig, Task
from services.gateway.session_config import Policy
from services.gateway.tasks import Bell, first_error
from services.gateway.transcript import Transcript
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

PROTOCOL = "grpc"

_LAG_S = 1.0
"""Between two messages that say how far behind the transcript is."""

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
Reply = Send[pb.ConverseResponse]


class GatewayServicer(rpc.GatewayServiceServicer):
    """Serves ``GatewayService``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._keys = Keys(gateway.settings.api_keys)

    @bidi
    async def Converse(self, requests: Requests, send: Reply, metadata: Metadata) -> None:
        if not self._keys.admit([from_authorization(metadata.get("authorization", ""))]):
            raise UnauthenticatedError("invalid credentials")
        opening = await _first(requests)
        config = SessionConfig(
            session_id=uuid.uuid4().hex,
            protocol=PROTOCOL,
            language_code=opening.language_code,
            model=opening.model,
            task=_task(opening),
            prompt=opening.prompt,
            hotwords=tuple(opening.hotwords),
            policy=_policy(opening),
            frame_threshold=(
                opening.frame_threshold if opening.HasField("frame_threshold") else None
            ),
        )
        settings = self._gateway.settings
        with self._gateway.session(config) as session:
            async with open_decoder(
                _format(opening), max_duration_s=settings.max_session_s
            ) as decoder:
                conversation = _Conversation(session, decoder, send)
                with first_error():
                    await conversation.hold(requests, self._gateway.closing, settings.idle_s)


class _Conversation:
    """A client and its session: one task receives, one transcribes, one sends."""

    def __init__(self, session: Session, decoder: Decoder, send: Reply) -> None:
        self._session = session
        self._decoder = decoder
        self._send = send
        self._captions = _Captions(session.transcript)
        self._hungry = False
        """Whether the session waits for the decoder."""
        self._fed = Bell()
        self._turn = asyncio.Lock()
        """Two tasks send; messages that belong together stay together."""

    async def hold(self, requests: Requests, closing: asyncio.Event, idle_s: float) -> None:
        """Serve the client to its end.

        Raises:
            ExceptionGroup: Of what ended it: a ``MeshError``, or ``ClientLeftError``.

        """
        config = self._session.config
        await self._say(
            pb.ConverseResponse(opened=pb.Opened(session_id=config.session_id, model=config.model))
        )
        async with asyncio.TaskGroup() as tasks:
            receive = tasks.create_task(self._receive(requests, idle_s), name="grpc.receive")
            close = tasks.create_task(self._close(closing), name="grpc.close")
            show = tasks.create_task(self._show(), name="grpc.show")
            await self._session.run(self._blocks())
            await show
            for task in (receive, close):
                task.cancel()
        await self._say(pb.ConverseResponse(finished=pb.Finished()))

    async def _receive(self, requests: Requests, idle_s: float) -> None:
        """Take in what the client says to its ``finish``.

        Raises:
            ClientLeftError: It left without.
            InvalidRequestError: It said something that has no place here.

        """
        while True:
            try:
                request = await asyncio.wait_for(anext(requests), idle_s)
            except StopAsyncIteration:
                raise ClientLeftError from None
            except TimeoutError:
                break
            match request.WhichOneof("payload"):
                case "audio":
                    await self._decoder.write(request.audio)
                case "flush":
                    await self._flush(request.flush.flush_id)
                case "finish":
                    break
                case "open":
                    raise InvalidRequestError("a second open")
                case None:
                    raise InvalidRequestError("an empty message")
        self._decoder.close()

    async def _close(self, closing: asyncio.Event) -> None:
        """End the session when the gateway has to stop."""
        await closing.wait()
        self._decoder.close()

    async def _blocks(self) -> AsyncIterator[bytes]:
        blocks = self._decoder.blocks()
        while True:
            self._hungry = True
            self._fed.ring()
            try:
                block = await anext(blocks)
            except StopAsyncIteration:
                return
            self._hungry = False
            yield block

    async def _flush(self, flush_id: int) -> None:
        while self._decoder.pending or not self._hungry:
            await self._fed.wait()
        await self._session.flush()
        await self._tell()
        await self._say(pb.ConverseResponse(flushed=pb.Flushed(flush_id=flush_id)))

    async def _show(self) -> None:
        """Send what changes, as it changes, until the session is over."""
        clock = asyncio.get_running_loop().time
        seen = -1
        lag_at = clock() + _LAG_S
        while not self._session.ended:
            seen = await self._session.changed(seen, timeout_s=max(0, lag_at - clock()))
            await self._tell()
            if clock() >= lag_at:
                lag_at = clock() + _LAG_S
                for response in self._captions.lag():
                    await self._say(response)
        await self._tell()

    async def _tell(self) -> None:
        async with self._turn:
            for response in self._captions.news():
                await self._write(response)

    async def _say(self, response: pb.ConverseResponse) -> None:
        async with self._turn:
            await self._write(response)

    async def _write(self, response: pb.ConverseResponse) -> None:
        await self._send(response)
        telemetry.MESSAGES_SENT.labels(PROTOCOL).inc()
        telemetry.BYTES_SENT.labels(PROTOCOL).inc(response.ByteSize())


class _Captions:
    """A transcript as messages: what one client has been sent of it."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._num_words = 0
        self._num_notices = 0
        self._seq = 0
        self._tail = ""
        self._language = ("", 0.0)
        self._lag = (0, 0)

    def news(self) -> list[pb.ConverseResponse]:
        """What has changed since the last call, to be sent in this order."""
        transcript = self._transcript
        responses = []
        for notice in transcript.notices[self._num_notices :]:
            self._num_notices += 1
            told = pb.Notice(
                stage=notice.stage,
                code=notice.code,
                message=notice.message,
                retryable=notice.retryable,
            )
            responses.append(pb.ConverseResponse(notice=told))
        language = (transcript.language_code, transcript.language_probability)
        if language != self._language:
            self._language = language
            detected = pb.LanguageDetected(language_code=language[0], probability=language[1])
            responses.append(pb.ConverseResponse(language=detected))
        words = transcript.words[self._num_words :]
        tail = text_of(transcript.tail)
        if words or tail != self._tail:
            self._num_words += len(words)
            self._tail = tail
            self._seq += 1
            captions = pb.Captions(
                seq=self._seq,
                words=[
                    pb.Word(
                        text=word.text,
                        start_offset=_offset(word.first_sample),
                        end_offset=_offset(word.end_sample),
                        probability=word.probability,
                    )
                    for word in words
                ],
                tail=tail,
            )
            responses.append(pb.ConverseResponse(captions=captions))
        return responses

    def lag(self) -> list[pb.ConverseResponse]:
        """How far behind the transcript is, if that has changed."""
        transcript = self._transcript
        undecoded = max(0, transcript.received_sample - transcript.decoded_sample)
        uncommitted = max(0, transcript.decoded_sample - transcript.committed_sample)
        if (undecoded, uncommitted) == self._lag:
            return []
        self._lag = (undecoded, uncommitted)
        lag = pb.Lag(undecoded=_offset(undecoded), uncommitted=_offset(uncommitted))
        return [pb.ConverseResponse(lag=lag)]


async def _first(requests: Requests) -> pb.Open:
    try:
        request = await anext(requests)
    except StopAsyncIteration:
        raise ClientLeftError from None
    if request.WhichOneof("payload") != "open":
        raise InvalidRequestError("the first message must be open")
    return request.open


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


def _offset(sample: int) -> Duration:
    whole, rest = divmod(sample, SAMPLE_RATE_HZ)
    return Duration(seconds=whole, nanos=rest * 1_000_000_000 // SAMPLE_RATE_HZ)
