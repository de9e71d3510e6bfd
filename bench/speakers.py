"""One live session over each of the gateway's protocols, at the pace of speech."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from av import AudioFrame, AudioResampler
from websockets.asyncio.client import ClientConnection, connect

from bench import asr_client
from bench.converse import converse, own_channel
from bench.corpus import Clip
from bench.listen_client import listen
from bench.mesh import Served
from services.common.timeline import SAMPLE_RATE_HZ
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.foreign.riva import riva_asr_pb2_grpc as riva_rpc
from voxmesh.foreign.riva import riva_common_pb2 as riva_common_pb

_REALTIME_HZ = 24_000
_ANSWER_S = 60.0
"""How long a session may take after the end of its audio."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a session went."""

    text: str
    """Everything that was said for good."""
    late_s: float
    """By how much its client was late with a message, at worst."""


Speak: TypeAlias = Callable[[Served, Clip, float], Awaitable[Spoken]]
"""Plays a clip, in messages of so many seconds."""


class _Pace:
    """Messages when their last sample has been spoken."""

    def __init__(self, pcm: bytes, frame_s: float, rate_hz: int = SAMPLE_RATE_HZ) -> None:
        self._pcm = pcm
        self._size = round(frame_s * rate_hz) * 2
        self._bytes_per_s = rate_hz * 2
        self.late_s = 0.0

    async def frames(self) -> AsyncIterator[bytes]:
        started_s = time.monotonic()
        for first in range(0, len(self._pcm), self._size):
            frame = self._pcm[first : first + self._size]
            due_s = started_s + (first + len(frame)) / self._bytes_per_s
            await asyncio.sleep(due_s - time.monotonic())
            self.late_s = max(self.late_s, time.monotonic() - due_s)
            yield frame


async def over_converse(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """``Converse`` over gRPC.

    Raises:
        RuntimeError: The session failed.

    """
    heard = await converse(mesh.grpc_target, clip, frame_s=frame_s)
    if heard.failure:
        raise RuntimeError(heard.failure)
    return Spoken(heard.text, heard.late_s)


async def over_asr(mesh: Served, clip: Clip, frame_s: float, *, mode: str) -> Spoken:
    """``WS /asr``."""
    watched = await asr_client.play(
        mesh.ws_url, clip.pcm, language_code=clip.language_code, mode=mode, frame_s=frame_s
    )
    return Spoken(watched.text, watched.late_s)


async def over_asr_full(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """``WS /asr``, the whole transcript with every change."""
    return await over_asr(mesh, clip, frame_s, mode="full")


async def over_asr_diff(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """``WS /asr``, what changed."""
    return await over_asr(mesh, clip, frame_s, mode="diff")


async def over_listen(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """``WS /v1/listen``, with interim results."""
    listened = await listen(mesh.url, clip, frame_s=frame_s)
    return Spoken(listened.text, listened.late_s)


async def over_realtime(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """``WS /v1/realtime``: 24 kHz in base64, turns found by the gateway."""
    pace = _Pace(_resampled(clip.pcm), frame_s, _REALTIME_HZ)
    url = f"ws{mesh.url.removeprefix('http')}/v1/realtime?intent=transcription"
    items: dict[str, str] = {}
    async with (
        asyncio.timeout(clip.audio_s + _ANSWER_S),
        connect(url, proxy=None, max_size=None, compression=None) as socket,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_append(socket, pace, clip.language_code), name="bench.send")
        while not await _told_all(socket, items):
            pass
    return Spoken(" ".join(items.values()), pace.late_s)


async def _append(socket: ClientConnection, pace: _Pace, language_code: str) -> None:
    said = {
        "format": {"type": "audio/pcm", "rate": _REALTIME_HZ},
        "transcription": {"language": language_code},
        "turn_detection": {"type": "server_vad"},
    }
    session = {"type": "transcription", "audio": {"input": said}}
    await socket.send(json.dumps({"type": "session.update", "session": session}))
    async for frame in pace.frames():
        audio = base64.b64encode(frame).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    await socket.send(json.dumps({"type": "input_audio_buffer.commit", "event_id": "last"}))


async def _told_all(socket: ClientConnection, items: dict[str, str]) -> bool:
    """Take in an event; whether all is said: what was committed last is empty."""
    event = json.loads(await socket.recv())
    match event["type"]:
        case "conversation.item.input_audio_transcription.completed":
            items[event["item_id"]] = event["transcript"].strip()
            return not event["transcript"]
        case "error":
            raise RuntimeError(event["error"]["message"])
    return False


async def over_riva(mesh: Served, clip: Clip, frame_s: float) -> Spoken:
    """NVIDIA Riva's ``StreamingRecognize``, with interim results."""
    pace = _Pace(clip.pcm, frame_s)
    finals = []
    async with (
        asyncio.timeout(clip.audio_s + _ANSWER_S),
        own_channel(mesh.grpc_target) as channel,
    ):
        stub = riva_rpc.RivaSpeechRecognitionStub(channel)
        async for response in stub.StreamingRecognize(_asked(pace, clip.language_code)):
            finals += [one.alternatives[0].transcript for one in response.results if one.is_final]
    return Spoken(" ".join(finals), pace.late_s)


async def _asked(
    pace: _Pace, language_code: str
) -> AsyncIterator[riva_pb.StreamingRecognizeRequest]:
    config = riva_pb.RecognitionConfig(
        encoding=riva_common_pb.LINEAR_PCM,
        sample_rate_hertz=SAMPLE_RATE_HZ,
        language_code=language_code,
    )
    opening = riva_pb.StreamingRecognitionConfig(config=config, interim_results=True)
    yield riva_pb.StreamingRecognizeRequest(streaming_config=opening)
    async for frame in pace.frames():
        yield riva_pb.StreamingRecognizeRequest(audio_content=frame)


@cache
def _resampled(pcm: bytes) -> bytes:
    """From 16 kHz to 24 kHz."""
    samples = np.frombuffer(pcm, "<i2")[np.newaxis]
    frame = AudioFrame.from_ndarray(samples, format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    resampler = AudioResampler(format="s16", layout="mono", rate=_REALTIME_HZ)
    blocks = [*resampler.resample(frame), *resampler.resample(None)]
    return b"".join(block.to_ndarray().tobytes() for block in blocks)


SPEAKERS: Mapping[str, Speak] = {
    "`Converse`": over_converse,
    "`/asr`, full": over_asr_full,
    "`/asr`, diff": over_asr_diff,
    "`/v1/listen`": over_listen,
    "`/v1/realtime`": over_realtime,
    "NVIDIA Riva": over_riva,
}
"""By the protocol that they speak."""
