"""A telephone call of two people through the real services, who say who said what."""

import asyncio
import os
import signal
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc.aio
import pytest

from tests.conftest import ServedMesh
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc

OPEN = pb.Open(
    encoding=pb.ENCODING_LINEAR16, language_code="en", diarization=pb.Diarization(max_speakers=4)
)
DIANE_S = ((8.5, 9.7), (11.0, 14.1), (18.0, 21.4), (28.6, 29.9))
SHEILA_S = ((14.6, 17.7), (22.0, 28.3))
"""When each of them speaks alone, by ear."""


@pytest.fixture(scope="module")
def mortal(own_mesh: Callable[..., AbstractContextManager[ServedMesh]]) -> Iterator[ServedMesh]:
    """A mesh whose services may be killed."""
    with own_mesh("tiny.en") as mesh:
        yield mesh


async def words_of(
    mesh: ServedMesh,
    path: Path,
    *,
    speed: float,
    kill_at_s: float = 0.0,
) -> list[pb.Word]:
    """What is said in a recording, played at a pace; the diarizer may be killed meanwhile."""
    with wave.open(str(path)) as file:
        pcm = file.readframes(file.getnframes())

    async def requests() -> AsyncIterator[pb.ConverseRequest]:
        yield pb.ConverseRequest(open=OPEN)
        killed = not kill_at_s
        for first in range(0, len(pcm), 3200):
            if not killed and first / 32_000 >= kill_at_s:
                os.kill(mesh.pid_of("diarizer"), signal.SIGKILL)
                killed = True
            yield pb.ConverseRequest(audio=pcm[first : first + 3200])
            await asyncio.sleep(0.1 / speed)
        yield pb.ConverseRequest(finish=pb.Finish())

    async with grpc.aio.insecure_channel(mesh.grpc_target) as channel:
        call = rpc.GatewayServiceStub(channel).Converse(requests(), timeout=120)
        return [word async for response in call for word in response.captions.words]


def speakers_in(words: list[pb.Word], spans_s: tuple[tuple[float, float], ...]) -> list[int]:
    """Who says the words that lie in some spans."""
    return [
        word.speaker
        for word in words
        for start_s, end_s in spans_s
        if start_s <= word.start_offset.ToTimedelta().total_seconds()
        and word.end_offset.ToTimedelta().total_seconds() <= end_s
    ]


def most(speakers: list[int]) -> int:
    return max(set(speakers), key=speakers.count)


def check(words: list[pb.Word]) -> None:
    diane, sheila = speakers_in(words, DIANE_S), speakers_in(words, SHEILA_S)
    assert len(diane) >= 15
    assert len(sheila) >= 15
    assert most(diane) != most(sheila)
    wrong = sum(one != most(diane) for one in diane) + sum(one != most(sheila) for one in sheila)
    assert wrong <= 0.15 * (len(diane) + len(sheila)), (diane, sheila)


async def test_two_people_on_the_telephone_are_told_apart(
    mesh_tiny: ServedMesh, speech: Path
) -> None:
    words = await words_of(mesh_tiny, speech / "sample.wav", speed=3)
    check(words)
    assert {word.speaker for word in words} <= {1, 2, 3}


async def test_they_keep_their_numbers_when_the_diarizer_is_killed_in_mid_conversation(
    mortal: ServedMesh, speech: Path
) -> None:
    """F8."""
    before = mortal.pid_of("diarizer")
    words = await words_of(mortal, speech / "sample.wav", speed=1, kill_at_s=19.0)
    assert mortal.pid_of("diarizer") != before
    diane, sheila = speakers_in(words, DIANE_S[:3]), speakers_in(words, SHEILA_S)
    after = [word for word in words if word.start_offset.seconds >= 24]
    assert most(diane) != most(sheila)
    assert most(speakers_in(after, SHEILA_S)) == most(sheila)
    assert most(speakers_in(after, DIANE_S)) == most(diane)
