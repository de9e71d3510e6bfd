"""A service is killed in mid-sentence; the session goes on as if nothing had happened."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from services.cli.live import converse, read_wav
from tests.conftest import TWO_CITIES, ServedMesh
from tests.mesh.asr import Watched, watch
from tests.mesh.wording import assert_same_words

KILLED_AT_S = 13.0
SPEED = 3.0


@pytest.fixture(scope="module")
def mortal(
    own_mesh: Callable[..., AbstractContextManager[ServedMesh]],
) -> Iterator[ServedMesh]:
    """A mesh whose services may be killed."""
    with own_mesh("tiny.en") as mesh:
        yield mesh


@pytest.mark.parametrize("service", ["asr", "vad"])
async def test_no_word_is_lost_or_said_twice_when_a_service_is_killed_in_mid_sentence(
    mortal: ServedMesh, undisturbed: Watched, two_cities: bytes, speech: Path, service: str
) -> None:
    killed = mortal.pid_of(service)
    kill = (KILLED_AT_S, lambda: os.kill(killed, signal.SIGKILL))
    watched, heard = await asyncio.gather(
        watch(mortal.ws_url, two_cities, speed=SPEED, then=[kill]),
        converse(
            mortal.grpc_target, read_wav(speech / "two_cities.wav"), language="en", speed=SPEED
        ),
    )
    assert mortal.pid_of(service) != killed
    assert_same_words(undisturbed.text, watched.text)
    assert_same_words(TWO_CITIES, watched.text)
    assert_same_words(TWO_CITIES, heard.transcript.text)
    # Whoever cannot be told of it sees nothing of it; whoever can is told.
    config, *states, last = watched.messages
    assert (config["type"], last["type"]) == ("config", "ready_to_stop")
    assert {state["type"] for state in states} == {"snapshot", "diff"}
    assert {state["status"] for state in states} <= {"active_transcription", "no_audio_detected"}
    assert heard.notices == (f"{service}: {service} was lost", f"{service}: {service} is back")
    ends = [word.end_s for word in heard.transcript.words]
    assert ends == sorted(ends)
