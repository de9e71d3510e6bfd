"""A mesh with keys, environments of SDKs, and programs that run in them."""

import asyncio
import json
import os
import shutil
import wave
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, TypeAlias

import numpy as np
import pytest
from av import AudioFrame, AudioResampler

from tests.conftest import ROOT, ServedMesh
from tests.gateway.fakes import write_keys
from tests.mesh.asr import BYTES_PER_S, pcm_of, silence
from tests.mesh.wording import difference

KEY = "secret"
"""The only key that the meshes of these tests accept."""

SAID = (
    "It was the best of times, it was the worst of times,"
    " it was the age of wisdom, it was the age of foolishness,"
)
"""In ``utterances``."""

_CLIENTS = Path(__file__).parent / "clients"
_ENVIRONMENTS = ROOT / ".venv-sdks"
_CLIENT_S = 120.0

Observed: TypeAlias = list[dict[str, Any]]
RunClient: TypeAlias = Callable[..., Awaitable[Observed]]
OwnMesh: TypeAlias = Callable[..., AbstractContextManager[ServedMesh]]


@pytest.fixture(scope="session")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_keys(tmp_path_factory.mktemp("keys") / "keys", {"alice": KEY})


@pytest.fixture(scope="session")
def recording_url(utterances_wav: Path) -> Iterator[str]:
    """Where a server has the file of ``utterances_wav``."""
    handler = partial(SimpleHTTPRequestHandler, directory=utterances_wav.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{utterances_wav.name}"
        server.shutdown()


@pytest.fixture(scope="session")
def keyed_mesh(keys_file: Path, recording_url: str, own_mesh: OwnMesh) -> Iterator[ServedMesh]:
    """A mesh with tiny.en that wants a key of its clients, and lets in as many as may come.

    They play much faster than anybody speaks, and several at once. It fetches recordings from the
    host of ``recording_url``.
    """
    variables = {
        "GATEWAY_KEYS_FILE": str(keys_file),
        "GATEWAY_FETCH_HOSTS": json.dumps([recording_url.rpartition("/")[0]]),
        "ASR_MAX_STEP_MS": "10000",
        "ASR_ADMIT_STEP_MS": "10000",
    }
    with own_mesh("tiny.en", **variables) as mesh:
        yield mesh


@pytest.fixture(scope="session")
def spoken(speech: Path) -> bytes:
    """Utterances with pauses between them, and silence at the end; 16 kHz PCM."""
    return pcm_of(speech / "beckett.wav") + silence(3)


@pytest.fixture(scope="session")
def spoken_24k(spoken: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at 24 kHz."""
    return write_24k(tmp_path_factory.mktemp("protocols") / "24k.pcm", spoken)


@pytest.fixture(scope="session")
def utterances(tmp_path_factory: pytest.TempPathFactory, speech: Path) -> Path:
    """Two, with 2 s of silence between them and 4 s behind them; 16 kHz PCM."""
    read = pcm_of(speech / "two_cities.wav")
    cut, end = (round(at_s * BYTES_PER_S) for at_s in (4.6, 8.6))
    path = tmp_path_factory.mktemp("protocols") / "utterances.pcm"
    path.write_bytes(read[:cut] + silence(2) + read[cut:end] + silence(4))
    return path


@pytest.fixture(scope="session")
def utterances_wav(utterances: Path) -> Path:
    """The same as a file."""
    return write_wav(utterances.with_suffix(".wav"), utterances.read_bytes())


def assert_heard(text: str, said: str = SAID) -> None:
    """Nothing is missing and nothing is said twice; in so few words, one may be misread."""
    found = difference(said, text)
    assert found.longest_lost <= 1, found
    assert found.longest_added <= 1, found
    assert found.wer_percent < 10, found


def write_wav(path: Path, pcm: bytes, *, channels: int = 1) -> Path:
    """Make a file of 16 kHz PCM."""
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm)
    return path


def write_24k(path: Path, pcm: bytes) -> Path:
    """Make 24 kHz PCM of 16 kHz PCM."""
    resampler = AudioResampler(format="s16", layout="mono", rate=24_000)
    frame = AudioFrame.from_ndarray(np.frombuffer(pcm, "<i2")[np.newaxis], "s16", "mono")
    frame.sample_rate = 16_000
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    path.write_bytes(b"".join(frame.to_ndarray().tobytes() for frame in frames))
    return path


def environment_of(name: str) -> Path:
    """The folder of an environment; where there is none, the test is skipped."""
    folder = _ENVIRONMENTS / name
    if not (folder / "installed").exists():
        pytest.skip(f"no environment {name}: make sdks")
    return folder


@pytest.fixture
def run_client() -> RunClient:
    """Runs a program of ``clients/`` in an environment, and returns what it observed.

    ``await run_client("deepgram-7", "deepgram_live.py", "--url", url)``; a program for Node.js runs
    in the folder of its environment. What else the process finds in its environment can be named.
    """

    async def run(environment: str, program: str, *arguments: str, **variables: str) -> Observed:
        folder = environment_of(environment)
        node = program.endswith(".mjs")
        if node and shutil.which("node") is None:
            pytest.skip("no Node.js")
        process = await asyncio.create_subprocess_exec(
            "node" if node else folder / "bin" / "python",
            _CLIENTS / program,
            *arguments,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables},
        )
        try:
            async with asyncio.timeout(_CLIENT_S):
                written, complaints = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, complaints.decode(errors="replace")
        return [json.loads(line) for line in written.decode().splitlines()]

    return run
