"""Broken input from every side: ``python -m tests.robustness.fuzz --number 10000``.

Valid messages are mutated and sent to a gateway in this process, with scripted stages behind it.
Whatever comes, the refusal is typed, nothing is logged as unexpected, and when all is over no task,
no file and no session is left. The seed is printed, and gives the same input again.
"""

import argparse
import asyncio
import io
import json
import random
import wave
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import httpx
import psutil
from google.protobuf.message import Message
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from services.gateway.servicer import add_services
from tests.gateway.contract import channels
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, Mesh, running, served, spans_of, words_at
from tests.settings.serving import until
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_common_pb2 as common_pb
from voxmesh.gateway.v1 import gateway_pb2 as pb

_PATIENCE_S = 20.0
"""For one connection."""
_ANSWER_S = 0.3
"""A client that does not say that it has said everything waits so long for an answer."""
_AT_ONCE = 8
_TYPED_CLOSES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1013, 4400})
"""How a WebSocket may end. 1006: it was we who left; 1011 would be a bug."""
_TYPED_CODES = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)


def _wav(duration_s: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(bytes(2 * round(duration_s * RATE)))
    return out.getvalue()


_MESSAGES = [
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16, resumable=True)),
    pb.ConverseRequest(open=pb.Open(hotwords=["a", "b"], prompt="c", language_code="en")),
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_MULAW, sample_rate_hz=8000, channels=2)),
    pb.ConverseRequest(audio=bytes(3200)),
    pb.ConverseRequest(audio=_wav(0.2)),
    pb.ConverseRequest(flush=pb.Flush(flush_id=1)),
    pb.ConverseRequest(resume=pb.Resume(token="t", num_words=3)),
    pb.ConverseRequest(finish=pb.Finish()),
]
_FINISH = _MESSAGES[-1].SerializeToString()
_RIVA_CONFIG = riva_pb.RecognitionConfig(
    encoding=common_pb.LINEAR_PCM,
    sample_rate_hertz=RATE,
    language_code="en-US",
    speech_contexts=[riva_pb.SpeechContext(phrases=["a"], boost=2)],
    enable_word_time_offsets=True,
    endpointing_config=riva_pb.EndpointingConfig(stop_history=300),
)
_RIVA_OPENING = riva_pb.StreamingRecognizeRequest(
    streaming_config=riva_pb.StreamingRecognitionConfig(config=_RIVA_CONFIG, interim_results=True)
)
_RIVA_MESSAGES = [
    _RIVA_OPENING,
    riva_pb.StreamingRecognizeRequest(streaming_config=riva_pb.StreamingRecognitionConfig()),
    riva_pb.StreamingRecognizeRequest(audio_content=bytes(3200)),
    riva_pb.StreamingRecognizeRequest(audio_content=_wav(0.2)),
    riva_pb.StreamingRecognizeRequest(runtime_config={"force_eou": "true"}),
]
_TEXTS = [
    '{"open": {"encoding": "ENCODING_LINEAR16", "resumable": true}}',
    '{"open": {"hotwords": ["a"], "frame_threshold": 3}}',
    '{"audio": "AAAA"}',
    '{"flush": {"flush_id": "1"}}',
    '{"resume": {"token": "t", "num_words": "1"}}',
    '{"finish": {}}',
    '{"type": "snapshot"}',
]
_MORE_TEXTS = [
    *_TEXTS,
    '{"type": "KeepAlive"}',
    '{"type": "Finalize", "channel": 0}',
    '{"type": "Configure", "keyterms": ["a"]}',
    '{"type": "CloseStream"}',
    '{"type": "session.update", "session": {"audio": {"input": {"turn_detection": null}}}}',
    '{"type": "session.update", "model": "fake"}',
    '{"type": "transcription_session.update", "session": {"input_audio_params": {}}}',
    '{"type": "input_audio_buffer.append", "audio": "AAAAAAAAAAAAAAAA"}',
    '{"type": "input_audio_buffer.commit", "final": true}',
    '{"type": "input_audio_buffer.clear", "event_id": "a"}',
    '{"type": "input_audio_buffer.done"}',
]
_AUDIO = [
    _wav(0.5),
    bytes(3200),
    b"OggS\0\2" + bytes(60),
    b"\x1a\x45\xdf\xa3" + bytes(60),
    b"fLaC" + bytes(60),
    b"\0\0\0\x20ftypM4A " + bytes(60),
    b"ID3\3\0" + bytes(60),
    b"#EXTM3U\nhttp://127.0.0.1/",
]
_QUERIES = ["", "?mode=diff", "?language=de&mode=full", "?format=container", "?model=x&token=%00"]
_FORM = (
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    + _wav(0.2)
    + b"\r\n--B--\r\n"
)


class Mutator:
    """Breaks valid things, in ways that the seed decides."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def data(self, valid: bytes) -> bytes:
        """Some bytes, perhaps broken."""
        rng, data = self.rng, bytearray(valid)
        for _ in range(rng.choice([0, 0, 0, 1, 2, 8])):
            place = rng.randrange(len(data) + 1)
            match rng.randrange(5):
                case 0:
                    del data[place:]
                case 1:
                    data[place:place] = rng.randbytes(rng.choice([1, 4, 64]))
                case 2 if data:
                    data[place % len(data)] ^= 1 << rng.randrange(8)
                case 3:
                    data += data[place:]
                case _:
                    del data[place : place + rng.choice([1, 2, 16])]
        return bytes(data[: 1 << 18])

    def text(self, valid: str) -> str:
        """Some text, perhaps broken."""
        return self.data(valid.encode()).decode(errors="replace")


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    ends: Counter[str] = field(default_factory=Counter)
    """How connections ended, and how many."""
    violations: list[str] = field(default_factory=list)
    grown_mb: float = 0.0
    """Memory after the second half of the run over memory after the first."""


class Doors:
    """The ways into a gateway."""

    def __init__(self, port: int, channel: grpc.aio.Channel, client: httpx.AsyncClient) -> None:
        self._port = port
        self._sockets = sorted(channels())
        self._client = client
        self._converse: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/voxmesh.gateway.v1.GatewayService/Converse"
        )
        self._riva: dict[str, grpc.aio.StreamStreamMultiCallable[bytes, bytes]] = {
            method: channel.stream_stream(f"/nvidia.riva.asr.RivaSpeechRecognition/{method}")
            for method in ("Recognize", "StreamingRecognize")
        }
        self.all: list[Callable[[Mutator], Awaitable[str]]] = [
            self._asr,
            self._converse_socket,
            self._grpc,
            self._riva_stream,
            self._riva_recording,
            self._upload,
            self._any_socket,
        ]

    async def _asr(self, mutator: Mutator) -> str:
        query = mutator.text(mutator.rng.choice(_QUERIES)).replace("#", "")
        frames: list[str | bytes] = [mutator.data(mutator.rng.choice(_AUDIO)) for _ in range(3)]
        frames.append(mutator.text(mutator.rng.choice(_TEXTS)))
        return await self._socket(f"/asr{_printable(query)}", frames, mutator, b"")

    async def _converse_socket(self, mutator: Mutator) -> str:
        texts = [mutator.text(text) for text in mutator.rng.sample(_TEXTS, 3)]
        frames: list[str | bytes] = [_TEXTS[0]] if mutator.rng.random() < 0.7 else []
        frames += [*texts, mutator.data(mutator.rng.choice(_AUDIO))]
        return await self._socket("/v1/converse", frames, mutator, '{"finish": {}}')

    async def _any_socket(self, mutator: Mutator) -> str:
        """One of all WebSockets that are described, and so of all that there are."""
        path = mutator.rng.choice(self._sockets)
        query = _printable(mutator.text(mutator.rng.choice(_QUERIES)).replace("#", ""))
        frames: list[str | bytes] = [
            *(mutator.text(text) for text in mutator.rng.sample(_MORE_TEXTS, 4)),
            *(mutator.data(mutator.rng.choice(_AUDIO)) for _ in range(2)),
        ]
        mutator.rng.shuffle(frames)
        url = f"ws://127.0.0.1:{self._port}{path}{query}"
        try:
            async with connect(url, proxy=None, close_timeout=2) as socket:
                with suppress(ConnectionClosed, TimeoutError):
                    for frame in frames:
                        await socket.send(frame)
                    async with asyncio.timeout(_ANSWER_S):
                        while True:
                            await socket.recv()
            return f"websocket {socket.close_code}"
        except InvalidStatus as refused:
            status = refused.response.status_code
            return f"http {status}" if status != 500 else "BUG: http 500"
        except WebSocketException as error:
            return f"websocket {type(error).__name__}"

    async def _socket(
        self, path: str, frames: list[str | bytes], mutator: Mutator, end: str | bytes
    ) -> str:
        leaves = mutator.rng.random() < 0.3
        try:
            async with connect(
                f"ws://127.0.0.1:{self._port}{path}", proxy=None, close_timeout=2
            ) as socket:
                with suppress(ConnectionClosed):
                    for frame in frames:
                        await socket.send(frame)
                    if leaves:
                        socket.transport.abort()
                    await socket.send(end)
                    while True:
                        message = json.loads(await socket.recv())
                        if message.get("type") == "ready_to_stop":
                            break
            code = socket.close_code or 1006
            return f"websocket {code}" if code in _TYPED_CLOSES else f"BUG: websocket {code}"
        except InvalidStatus as refused:
            status = refused.response.status_code
            return f"http {status}" if status != 500 else "BUG: http 500"
        except WebSocketException as error:
            return f"websocket {type(error).__name__}"

    async def _grpc(self, mutator: Mutator) -> str:
        messages = self._messages(_MESSAGES, mutator)
        if mutator.rng.random() < 0.5:
            messages.append(_FINISH)
        return await self._call(self._converse, messages, mutator)

    async def _riva_stream(self, mutator: Mutator) -> str:
        messages = self._messages(_RIVA_MESSAGES, mutator)
        return await self._call(self._riva["StreamingRecognize"], messages, mutator)

    async def _riva_recording(self, mutator: Mutator) -> str:
        audio = mutator.data(mutator.rng.choice(_AUDIO))
        request = riva_pb.RecognizeRequest(config=_RIVA_CONFIG, audio=audio)
        messages = [mutator.data(request.SerializeToString())]
        return await self._call(self._riva["Recognize"], messages, mutator)

    def _messages(self, valid: Sequence[Message], mutator: Mutator) -> list[bytes]:
        """Some messages, perhaps broken; every other time the opening comes first."""
        chosen = [mutator.rng.choice(valid) for _ in range(3)]
        messages = [valid[0], *chosen] if mutator.rng.random() < 0.5 else chosen
        return [mutator.data(message.SerializeToString()) for message in messages]

    async def _call(
        self,
        method: "grpc.aio.StreamStreamMultiCallable[bytes, bytes]",
        messages: Sequence[bytes],
        mutator: Mutator,
    ) -> str:
        call = method()
        try:
            for message in messages:
                await call.write(message)
            if mutator.rng.random() < 0.2:
                call.cancel()
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            # grpc.aio forgets the status of a call that ended while it was written to, and its
            # server says UNKNOWN or INTERNAL of bytes that are no message.
            forgotten = "Internal error from Core" in (error.details() or "")
            unreadable = "deserializ" in (error.details() or "").lower()
            if error.code() in _TYPED_CODES or forgotten or unreadable:
                return f"grpc {error.code().name}"
            return f"BUG: grpc {error.code().name} {error.details()}"
        except (asyncio.InvalidStateError, asyncio.CancelledError):
            return "grpc left"
        return "grpc OK"

    async def _upload(self, mutator: Mutator) -> str:
        kind = mutator.text("multipart/form-data; boundary=B")
        answer = await self._client.post(
            "/v1/audio/transcriptions",
            content=mutator.data(_FORM),
            headers={"content-type": _printable(kind)},
        )
        if answer.status_code == 500 or (answer.is_error and "error" not in answer.json()):
            return f"BUG: http {answer.status_code} {answer.text[:100]}"
        return f"http {answer.status_code}"


def _printable(text: str) -> str:
    return "".join(char for char in text if " " < char < "\x7f")


@asynccontextmanager
async def _doors(mesh: Mesh) -> AsyncIterator[Doors]:
    server = grpc.aio.server()
    add_services(mesh.gateway, server)
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        served(mesh.gateway) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=_PATIENCE_S
        ) as client,
    ):
        yield Doors(port, channel, client)
    await server.stop(grace=None)


async def fuzz(number: int, seed: int) -> Outcome:
    """Send broken input over so many connections."""
    outcome = Outcome()
    process = psutil.Process()
    said = words_at(0.1)
    settings: dict[str, Any] = {
        "resume_s": 0.1,
        "idle_s": 2.0,
        "max_session_s": 60,
        "max_sessions": 4 * _AT_ONCE,
    }
    with capture_logs() as logs:
        async with (
            running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh,
            _doors(mesh) as doors,
        ):
            await _many(doors, range(_AT_ONCE), seed, outcome)
            tasks, files = len(asyncio.all_tasks()), process.num_fds()
            half = number // 2
            await _many(doors, range(_AT_ONCE, half), seed, outcome)
            used = process.memory_info().rss
            await _many(doors, range(half, number), seed, outcome)
            outcome.grown_mb = (process.memory_info().rss - used) / 1e6

            def is_over() -> bool:
                return (
                    not mesh.gateway.open_sessions
                    and len(asyncio.all_tasks()) <= tasks + _AT_ONCE
                    and process.num_fds() <= files + _AT_ONCE
                )

            try:
                await until(is_over, within_s=_PATIENCE_S)
            except TimeoutError:
                outcome.violations.append(
                    f"left over: {mesh.gateway.open_sessions} sessions, "
                    f"{len(asyncio.all_tasks())} tasks ({tasks} before), "
                    f"{process.num_fds()} files ({files} before)"
                )
    outcome.violations += [f"logged: {log}" for log in logs if log["event"] == "unexpected error"]
    return outcome


async def _many(doors: Doors, numbers: range, seed: int, outcome: Outcome) -> None:
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            mutator = Mutator(random.Random(f"{seed}-{number}"))
            door = doors.all[number % len(doors.all)]
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    end = await door(mutator)
            except TimeoutError:
                end = f"BUG: {door.__name__} was not answered"
            outcome.ends[end] += 1
            if end.startswith("BUG"):
                outcome.violations.append(f"number {number}: {end}")

    async with asyncio.TaskGroup() as tasks:
        for name in range(_AT_ONCE):
            tasks.create_task(worker(), name=f"fuzz.{name}")


def main() -> None:
    """Run; the exit code says whether everything was refused as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}")
    outcome = asyncio.run(fuzz(chosen.number, chosen.seed))
    for end, count in outcome.ends.most_common():
        print(f"{count:6} {end}")
    print(f"memory grew by {outcome.grown_mb:.1f} MB in the second half")
    print("\n".join(outcome.violations) or "everything was refused as it should be")
    raise SystemExit(bool(outcome.violations))


if __name__ == "__main__":
    main()
