"""The whole command with real services and real models behind it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from services.cli.live import converse, read_wav
from services.common.channel import open_channel, serves
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.conftest import Models, ServedMesh

BECKETT = "ever tried ever failed no matter try again fail again fail better"


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.casefold()))


def voxmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as people do, with nobody at a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


PLAY = """
import asyncio, sys
import grpc
from pathlib import Path
from services.cli.live import converse, read_wav

session = asyncio.run(
    converse(
        sys.argv[1],
        read_wav(Path(sys.argv[2])),
        speed=4,
        credentials=grpc.ssl_channel_credentials(),
    )
)
print(session.transcript.text)
"""


def play(target: str, recording: Path) -> subprocess.CompletedProcess[str]:
    """Speak gRPC over TLS, in a process of its own: gRPC looks for its CAs once."""
    return subprocess.run(
        [sys.executable, "-c", PLAY, target, str(recording)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def test_everything_that_the_welcome_names_answers(mesh_tiny: "ServedMesh") -> None:
    welcome = mesh_tiny.logs()
    assert f"{mesh_tiny.http_url}/v1" in welcome
    assert f"{mesh_tiny.ws_url}/asr" in welcome
    assert f"{mesh_tiny.grpc_target} (voxmesh.gateway.v1.GatewayService)" in welcome
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{mesh_tiny.http_url}/ready")).is_success
        for service in ("gateway", "vad", "asr"):
            metrics = await client.get(mesh_tiny.metrics_url(service))
            assert "voxmesh_" in metrics.text
    async with open_channel(mesh_tiny.grpc_target) as channel:
        assert await serves(channel, "voxmesh.gateway.v1.GatewayService", timeout_s=5)


async def test_speech_comes_back_as_words_with_their_delays(
    mesh_tiny: "ServedMesh", speech: Path
) -> None:
    session = await converse(
        mesh_tiny.grpc_target, read_wav(speech / "beckett.wav"), language="en", speed=2
    )
    assert plain(session.transcript.text) == BECKETT
    ends = [word.end_s for word in session.transcript.words]
    assert ends == sorted(ends)
    assert 0 < ends[0] < ends[-1] <= session.audio_s + 0.5
    for word in session.transcript.words:
        assert -0.5 < word.first_delay_s <= word.final_delay_s < 30


async def test_a_mesh_with_a_certificate_is_reached_by_clients_that_are_told_of_its_ca(
    own_mesh: "Callable[..., AbstractContextManager[ServedMesh]]",
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ca = Authority(tmp_path)
    pair, recording = ca.issue("gateway"), speech / "beckett.wav"
    monkeypatch.setenv("GATEWAY_TLS_KEY_FILE", str(pair.key))
    with own_mesh("tiny.en", "--tls-cert", str(pair.cert)) as mesh:
        url = f"https://127.0.0.1:{mesh.port}"
        assert f"{url}/v1" in mesh.logs()
        stranger = voxmesh("transcribe", "--server", url, str(recording))
        assert stranger.returncode == 1
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.stderr
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
        transcribed = voxmesh("transcribe", "--server", url, str(recording))
        assert transcribed.returncode == 0, transcribed.stderr
        assert plain(transcribed.stdout) == BECKETT
        monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(ca.file))
        live = await asyncio.to_thread(play, mesh.grpc_target, recording)
        assert plain(live.stdout) == BECKETT, live.stderr


async def test_a_service_that_is_killed_is_back_and_the_next_session_works(
    own_mesh: "Callable[..., AbstractContextManager[ServedMesh]]", speech: Path
) -> None:
    with own_mesh("tiny.en") as mesh:
        for service in ("vad", "asr", "gateway"):
            before = mesh.pid_of(service)
            os.kill(before, signal.SIGKILL)
            await _answering_again(mesh, service, before)
        session = await converse(
            mesh.grpc_target, read_wav(speech / "beckett.wav"), language="en", speed=4
        )
        assert plain(session.transcript.text) == BECKETT
        assert mesh.logs().count("ended with SIGKILL; starting it again") == 3


async def _answering_again(mesh: "ServedMesh", service: str, before: int) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                ready = (await client.get(f"{mesh.http_url}/ready")).is_success
                if ready and mesh.pid_of(service) != before:
                    return
            except (httpx.HTTPError, ProcessLookupError):
                pass
            await asyncio.sleep(0.1)  # for the service to load its model


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_mesh_that_is_killed_outright_leaves_no_service_behind(
    own_mesh: "Callable[..., AbstractContextManager[ServedMesh]]",
) -> None:
    with own_mesh("tiny.en") as mesh:
        children = psutil.Process(mesh.pid).children()
        assert len(children) == 5
        os.kill(mesh.pid, signal.SIGKILL)
        _gone, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []


async def test_ctrl_c_during_a_session_ends_the_mesh_within_its_drain(
    own_mesh: "Callable[..., AbstractContextManager[ServedMesh]]", speech: Path
) -> None:
    recording = read_wav(speech / "two_cities.wav")
    with own_mesh("tiny.en") as mesh:
        talk = asyncio.create_task(converse(mesh.grpc_target, recording, language="en"))
        await asyncio.sleep(3)  # for some of the speech to be spoken
        started = time.monotonic()
        os.kill(mesh.pid, signal.SIGINT)
        process = psutil.Process(mesh.pid)
        await asyncio.to_thread(process.wait, 40)
        assert time.monotonic() - started < 35
        talk.cancel()
        await asyncio.gather(talk, return_exceptions=True)


def test_a_recording_is_transcribed_by_a_running_server(
    mesh_tiny: "ServedMesh", speech: Path
) -> None:
    result = voxmesh(
        "transcribe",
        "--server",
        mesh_tiny.http_url,
        "--language",
        "en",
        str(speech / "beckett.wav"),
    )
    assert result.returncode == 0, result.stderr
    assert plain(result.stdout) == BECKETT


@pytest.mark.parametrize(
    ("kind", "beginning"), [("srt", "1\n00:00:0"), ("vtt", "WEBVTT\n\n"), ("json", '{"text":')]
)
def test_subtitles_go_into_a_file(
    mesh_tiny: "ServedMesh", speech: Path, tmp_path: Path, kind: str, beginning: str
) -> None:
    result = voxmesh(
        *("transcribe", "--server", mesh_tiny.http_url, "--format", kind),
        *("--output", str(tmp_path / f"out.{kind}"), str(speech / "beckett.wav")),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    text = (tmp_path / f"out.{kind}").read_text()
    assert text.startswith(beginning)
    assert "fail better" in text.casefold()


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("text", r"^Speaker (\d+): \S"),
        ("srt", r"-->.*\nSpeaker (\d+): \S"),
        ("vtt", r"-->.*\nSpeaker (\d+): \S"),
        ("json", r'"speaker":"([A-Z])"'),
        ("verbose_json", r'"speaker":"([A-Z])"'),
    ],
)
def test_two_people_are_told_apart_in_every_format(
    mesh_tiny: "ServedMesh", speech: Path, kind: str, pattern: str
) -> None:
    result = voxmesh(
        *("transcribe", "--server", mesh_tiny.http_url, "--language", "en", "--format", kind),
        *("--speakers", "2", str(speech / "sample.wav")),
    )
    assert result.returncode == 0, result.stderr
    turns = re.findall(pattern, result.stdout, re.MULTILINE)
    assert set(turns) == ({"1", "2"} if kind in {"text", "srt", "vtt"} else {"A", "B"})
    assert len(turns) > 3


def test_what_is_no_recording_fails_alone_with_the_servers_reason(
    mesh_tiny: "ServedMesh", speech: Path, tmp_path: Path
) -> None:
    (tmp_path / "page.wav").write_text("<html>not found</html>")
    result = voxmesh(
        *("transcribe", "--server", mesh_tiny.http_url, "--language", "en"),
        *(str(tmp_path / "page.wav"), str(speech / "beckett.wav")),
    )
    assert result.returncode == 1
    assert re.search(r"page\.wav: .+ \(HTTP 400\)", result.stderr)
    assert plain(result.stdout) == BECKETT


def test_the_demo_shows_captions_and_numbers(models: "Models", speech: Path) -> None:
    models("tiny.en")
    result = voxmesh(
        *("demo", "--offline", "--model", "tiny.en", "--speed", "2"),
        *("--file", str(speech / "beckett.wav")),
    )
    assert result.returncode == 0, result.stderr
    captions, table = result.stdout.split("tiny.en, 10.0 s of audio at 2x")
    assert plain(re.sub(r"^ *[\d.]+ s", "", captions, flags=re.MULTILINE)) == BECKETT
    for row in (
        "words",
        "word first seen",
        "word final",
        "RTF",
        "CPU time",
        "gateway",
        "vad",
        "asr",
    ):
        assert row in table


def test_without_a_server_a_mesh_is_started_for_the_job(models: "Models", speech: Path) -> None:
    models("tiny.en")
    models("diarizer-online")
    result = voxmesh(
        *("transcribe", "--offline", "--model", "tiny.en", "--language", "en", "--diarize"),
        str(speech / "beckett.wav"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Speaker 1: ")
    assert plain(result.stdout.removeprefix("Speaker 1: ")) == BECKETT
