"""The ways into a gateway, and broken things to send through each.

What comes back is told in a word or two; it begins with ``BUG`` if no client may be answered so.
"""

import asyncio
import base64
import io
import json
import random
import wave
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import grpc
import grpc.aio
import httpx
from google.protobuf.message import Message
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from tests.gateway.contract import channels
from tests.gateway.fakes import RATE
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_common_pb2 as common_pb
from voxmesh.gateway.v1 import gateway_pb2 as pb

_TYPED_CLOSES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1013, 4400})
"""How a WebSocket may end. 1006: it was we who left; 1011 would be a bug, but for these reasons."""
_REASONS = ("NET-0001",)
_UNHEARD_OF = "goodbye"
_LAST_WORDS = (b"ready_to_stop", _UNHEARD_OF.encode())
"""A client leaves when it has heard one of them: the answer to an event that there is not."""
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


_SPEAKERS = pb.Diarization(
    max_speakers=3, enrolled=[pb.EnrolledSpeaker(name="a", speech=bytes(2 * RATE))]
)
_INTO = pb.TranslateInto(language_codes=["pt", "German"])
_MESSAGES = [
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16, resumable=True)),
    pb.ConverseRequest(open=pb.Open(hotwords=["a", "b"], prompt="c", language_code="en")),
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_MULAW, sample_rate_hz=8000, channels=2)),
    pb.ConverseRequest(open=pb.Open(encoding=pb.ENCODING_LINEAR16, diarization=_SPEAKERS)),
    pb.ConverseRequest(open=pb.Open(language_code="en", translate_into=_INTO, resumable=True)),
    pb.ConverseRequest(translate_into=_INTO),
    pb.ConverseRequest(translate_into=pb.TranslateInto()),
    pb.ConverseRequest(name_speaker=pb.NameSpeaker(speaker=1, name="a")),
    pb.ConverseRequest(audio=bytes(3200)),
    pb.ConverseRequest(audio=_wav(0.2)),
    pb.ConverseRequest(flush=pb.Flush(flush_id=1)),
    pb.ConverseRequest(resume=pb.Resume(token="t", num_words=3, num_pieces={"pt": 1})),
    pb.ConverseRequest(finish=pb.Finish()),
]
_FINISH = _MESSAGES[-1].SerializeToString()
_RIVA_CONFIG = riva_pb.RecognitionConfig(
    encoding=common_pb.LINEAR_PCM,
    sample_rate_hertz=RATE,
    language_code="en-US",
    speech_contexts=[riva_pb.SpeechContext(phrases=["a"], boost=2)],
    enable_word_time_offsets=True,
    diarization_config=riva_pb.SpeakerDiarizationConfig(
        enable_speaker_diarization=True, max_speaker_count=2
    ),
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
    '{"open": {"diarization": {"num_speakers": 2, "enrolled": [{"name": "a"}]}}}',
    '{"audio": "AAAA"}',
    '{"flush": {"flush_id": "1"}}',
    '{"open": {"translate_into": {"language_codes": ["pt"]}}}',
    '{"translate_into": {"language_codes": ["por_Latn", "pt-BR", "x"]}}',
    '{"name_speaker": {"speaker": 1, "name": "a"}}',
    '{"resume": {"token": "t", "num_words": "1", "num_pieces": {"pt": "1"}}}',
    '{"finish": {}}',
    '{"type": "snapshot"}',
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
_QUERIES = [
    "",
    "?mode=diff",
    "?diarization=true",
    "?language=de&mode=full",
    "?format=container",
    "?target_language=pt&language=en",
    "?model=x&token=%00",
]
_LISTEN_QUERIES = [
    "?encoding=linear16&sample_rate=16000",
    "?encoding=linear16&sample_rate=16000&channels=2&multichannel=true&interim_results=true",
    "?encoding=mulaw&sample_rate=8000&endpointing=10&utterance_end_ms=1000&diarize=true",
    "?encoding=opus&sample_rate=48000",
    "?language=multi&keyterm=a&redact=pci&callback=http://127.0.0.1/",
]
_LISTEN_TEXTS = [
    '{"type": "KeepAlive"}',
    '{"type": "Finalize", "channel": 0}',
    '{"type": "Configure", "features": {"keyterms": ["a"]}}',
    '{"type": "Banana"}',
]
_SESSION = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
_DIARIZED = {"input_audio_transcription": {"model": "gpt-4o-transcribe-diarize"}}
_APPEND = {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(4800)).decode()}
_REALTIME_TEXTS = [
    json.dumps(event)
    for event in (
        {"type": "session.update", "session": _SESSION},
        {"type": "session.update", "session": _DIARIZED},
        {"type": "session.update", "model": "whisper-1"},
        {"type": "transcription_session.update", "session": {"input_audio_format": "g711_ulaw"}},
        {"type": "transcription_session.update", "session": {"input_audio_params": {}}},
        _APPEND,
        _APPEND,
        {"type": "input_audio_buffer.commit", "final": True},
        {"type": "input_audio_buffer.clear", "event_id": "e"},
        {"type": "input_audio_buffer.done"},
    )
]
_MINTS = {
    "/v1/realtime/client_secrets": {"expires_after": {"seconds": 60}, "session": _SESSION},
    "/v1/realtime/transcription_sessions": {"input_audio_format": "pcm16"},
}
_FORM = (
    b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--B\r\nContent-Disposition: form-data; name="diarize"\r\n\r\ntrue\r\n'
    b'--B\r\nContent-Disposition: form-data; name="max_speakers"\r\n\r\n2\r\n'
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


class Doors:
    """The ways into a gateway."""

    def __init__(self, port: int, channel: grpc.aio.Channel, client: httpx.AsyncClient) -> None:
        self._port = port
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
            self._listen,
            self._realtime,
            self._any_socket,
            self._grpc,
            self._riva_stream,
            self._riva_recording,
            self._upload,
            self._recording,
            self._mint,
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

    async def _listen(self, mutator: Mutator) -> str:
        query = mutator.text(mutator.rng.choice(_LISTEN_QUERIES)).replace("#", "")
        frames: list[str | bytes] = [mutator.data(mutator.rng.choice(_AUDIO)) for _ in range(2)]
        frames += [mutator.text(text) for text in mutator.rng.sample(_LISTEN_TEXTS, 2)]
        mutator.rng.shuffle(frames)
        path = f"/v1/listen{_printable(query)}"
        return await self._socket(path, frames, mutator, '{"type": "CloseStream"}')

    async def _realtime(self, mutator: Mutator) -> str:
        texts = [mutator.text(text) for text in mutator.rng.sample(_REALTIME_TEXTS, 4)]
        return await self._socket("/v1/realtime", texts, mutator, json.dumps({"type": _UNHEARD_OF}))

    async def _any_socket(self, mutator: Mutator) -> str:
        """One of those that are described, and so of all that there are."""
        path = mutator.rng.choice(sorted(channels()))
        query = mutator.text(mutator.rng.choice(_QUERIES)).replace("#", "")
        texts = mutator.rng.sample([*_TEXTS, *_LISTEN_TEXTS, *_REALTIME_TEXTS], 4)
        frames: list[str | bytes] = [mutator.data(mutator.rng.choice(_AUDIO)) for _ in range(2)]
        frames += map(mutator.text, texts)
        mutator.rng.shuffle(frames)
        return await self._socket(f"{path}{_printable(query)}", frames, mutator, b"")

    async def _socket(
        self, path: str, frames: Sequence[str | bytes], mutator: Mutator, end: str | bytes
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
                        message = await socket.recv(decode=False)
                        if any(word in message for word in _LAST_WORDS):
                            break
            code, reason = socket.close_code or 1006, socket.close_reason or ""
            typed = code in _TYPED_CLOSES or reason.startswith(_REASONS)
            return f"websocket {code}" if typed else f"BUG: websocket {code} {reason}"
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
        form = mutator.data(_FORM)
        return await self._post("/v1/audio/transcriptions", form, kind, "error")

    async def _recording(self, mutator: Mutator) -> str:
        query = mutator.text(mutator.rng.choice(_LISTEN_QUERIES)).replace("#", "")
        audio = mutator.data(mutator.rng.choice([*_AUDIO, b'{"url": "http://127.0.0.1/"}']))
        kind = mutator.rng.choice(["", "audio/*", "application/json"])
        return await self._post(f"/v1/listen{_printable(query)}", audio, kind, "err_code")

    async def _mint(self, mutator: Mutator) -> str:
        path, body = mutator.rng.choice(list(_MINTS.items()))
        wish = mutator.data(json.dumps(body).encode())
        return await self._post(path, wish, "application/json", "error")

    async def _post(self, path: str, body: bytes, kind: str, told_by: str) -> str:
        headers = {"content-type": _printable(kind)}
        answer = await self._client.post(path, content=body, headers=headers)
        if answer.status_code == 500 or (answer.is_error and told_by not in answer.json()):
            return f"BUG: http {answer.status_code} {answer.text[:100]}"
        return f"http {answer.status_code}"


def _printable(text: str) -> str:
    return "".join(char for char in text if " " < char < "\x7f")
