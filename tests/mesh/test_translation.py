"""Speech in one language through the real services, and captions in another."""

import asyncio
import json
import os
import signal
import wave
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from websockets.asyncio.client import connect

from tests.conftest import ServedMesh
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc


@dataclass
class Heard:
    """What a client is told of a session."""

    words: list[pb.Word] = field(default_factory=list)
    pieces: list[pb.TranslatedPiece] = field(default_factory=list)
    notices: list[pb.Notice] = field(default_factory=list)

    @property
    def translation(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def coverage(self) -> list[int]:
        """Of how many pieces each word is in the span."""
        spans = [
            (piece.start_offset.ToNanoseconds(), piece.end_offset.ToNanoseconds())
            for piece in self.pieces
        ]
        return [
            sum(
                first <= word.start_offset.ToNanoseconds()
                and word.end_offset.ToNanoseconds() <= end
                for first, end in spans
            )
            for word in self.words
        ]


async def listen(
    mesh: ServedMesh,
    path: Path,
    opening: pb.Open,
    *,
    speed: float,
    kill_at_s: tuple[float, ...] = (),
) -> Heard:
    """Play a WAV file at a pace; the translator is killed where that is wanted."""
    audio, bytes_per_s = wav(path)
    block_bytes = bytes_per_s // 10

    async def requests() -> AsyncIterator[pb.ConverseRequest]:
        yield pb.ConverseRequest(open=opening)
        deaths = list(kill_at_s)
        for first in range(0, len(audio), block_bytes):
            if deaths and first / bytes_per_s >= deaths[0]:
                deaths.pop(0)
                os.kill(mesh.pid_of("translator"), signal.SIGKILL)
            yield pb.ConverseRequest(audio=audio[first : first + block_bytes])
            await asyncio.sleep(0.1 / speed)
        yield pb.ConverseRequest(finish=pb.Finish())

    return await told(mesh, requests())


async def told(mesh: ServedMesh, requests: AsyncIterator[pb.ConverseRequest]) -> Heard:
    """What a client is told that says this."""
    heard = Heard()
    async with grpc.aio.insecure_channel(mesh.grpc_target) as channel:
        call = rpc.GatewayServiceStub(channel).Converse(requests, timeout=180)
        async for response in call:
            heard.words += response.captions.words
            heard.pieces += response.translated.pieces
            if response.HasField("notice"):
                heard.notices.append(response.notice)
    return heard


def wav(path: Path) -> tuple[bytes, int]:
    """A file of one channel, and how much of it is played in a second."""
    with wave.open(str(path)) as file:
        return path.read_bytes(), 2 * file.getframerate()


def into(*targets: str, language: str = "en") -> pb.Open:
    wanted = pb.TranslateInto(language_codes=targets)
    return pb.Open(language_code=language, translate_into=wanted)


async def test_english_speech_has_portuguese_captions(mesh_tiny: ServedMesh, speech: Path) -> None:
    heard = await listen(mesh_tiny, speech / "two_cities.wav", into("pt-BR"), speed=2)
    assert "melhor dos tempos" in heard.translation
    assert "desespero" in heard.translation
    assert set(heard.coverage()) == {1}
    assert list(heard.notices) == []


async def test_portuguese_speech_has_english_captions(
    mesh_base: ServedMesh, shared_data: Path
) -> None:
    lines = (shared_data / "fleurs" / "manifest.jsonl").read_text().splitlines()
    spoken = [line for line in map(json.loads, lines) if line["lang"] == "pt"]
    recording = max(spoken, key=lambda line: line["dur"])
    opening = into("English", language="pt")

    async def requests() -> AsyncIterator[pb.ConverseRequest]:
        yield pb.ConverseRequest(open=opening)
        yield pb.ConverseRequest(audio=(shared_data / recording["path"]).read_bytes())
        yield pb.ConverseRequest(finish=pb.Finish())

    heard = await told(mesh_base, requests())
    assert set(heard.coverage()) == {1}
    reference = Counter(recording["translations"]["en"].lower().split())
    found = Counter(heard.translation.lower().split())
    assert (reference & found).total() >= reference.total() / 3


async def test_a_killed_translator_loses_no_sentence_and_repeats_none(
    own_mesh: Callable[..., AbstractContextManager[ServedMesh]], speech: Path
) -> None:
    """F9."""
    with own_mesh("tiny.en") as mesh:
        heard = await listen(
            mesh, speech / "two_cities.wav", into("pt"), speed=1, kill_at_s=(9.0, 21.0, 33.0)
        )
    assert set(heard.coverage()) == {1}
    assert {notice.stage for notice in heard.notices} == {"translator"}
    assert [notice.code for notice in heard.notices] == ["DEGRADED", "RECOVERED"] * 3
    sentences = [piece.text for piece in heard.pieces if len(piece.text.split()) > 3]
    assert max(Counter(sentences).values()) == 1


async def test_the_lines_of_asr_have_translations(mesh_tiny: ServedMesh, beckett: bytes) -> None:
    url = f"{mesh_tiny.ws_url}/asr?language=en&target_language=Portuguese"
    async with connect(url, proxy=None) as socket:
        await socket.send(beckett)
        await socket.send(b"")
        async with asyncio.timeout(60):
            states = [json.loads(await socket.recv())]
            while states[-1] != {"type": "ready_to_stop"}:
                states.append(json.loads(await socket.recv()))
    [line] = states[-2]["lines"]
    assert "Falha melhor" in line["translation"]
    assert states[-2]["buffer_translation"] == ""
