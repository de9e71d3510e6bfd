"""What tests of several services share: installed models, recordings, a mesh of real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import psutil
import pytest
from hypothesis import settings

from services.common.models import ModelMissingError, locate

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("long", max_examples=5_000, deadline=None)
settings.load_profile("same")
"""The same examples every time; ``pytest --hypothesis-profile=long`` looks for others."""

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

TWO_CITIES = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age"
    " of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the"
    " season of Light, it was the season of Darkness, it was the spring of hope, it was the winter"
    " of despair, we had everything before us, we had nothing before us, we were all going direct"
    " to Heaven, we were all going direct the other way - in short, the period was so far like the"
    " present period, that some of its noisiest authorities insisted on its being received, for"
    " good or for evil, in the superlative degree of comparison only."
)
"""What is read in two_cities.wav: Charles Dickens, A Tale of Two Cities (1859), its opening."""

Models: TypeAlias = Callable[[str], Path]


@dataclass(frozen=True)
class ServedMesh:
    """A ``voxmesh serve`` that tests talk to like any client."""

    pid: int
    port: int
    grpc_port: int
    metrics_port: int
    output: Path
    """Everything that it and its services wrote."""

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def grpc_target(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def metrics_url(self, service: str) -> str:
        port = self.metrics_port + ("gateway", "vad", "asr").index(service)
        return f"http://127.0.0.1:{port}/metrics"

    def pid_of(self, service: str) -> int:
        """The process of a service now; it changes when the service is restarted."""
        for child in psutil.Process(self.pid).children():
            if f"services.{service}" in child.cmdline()[-1:]:
                return child.pid
        raise ProcessLookupError(f"no {service} runs")

    def logs(self) -> str:
        """The JSON log lines of all services, and what the command said."""
        return self.output.read_text(errors="replace")


@pytest.fixture(scope="session")
def models() -> Models:
    """Where an installed model lies, by name."""

    def find(name: str) -> Path:
        try:
            return locate(name)
        except ModelMissingError as error:
            pytest.fail(f"{error}, or `make test`, which pulls what the tests need")

    return find


@pytest.fixture(scope="session")
def speech(models: Models) -> Path:
    """Folder of two_cities.wav (44 s, 48 kHz), beckett.wav (10 s) and sample.wav (30 s, two)."""
    return models("speech")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of recordings with references, where there is one."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the recordings of {SHARED_DATA.parent.name}/data are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def mesh(models: Models) -> Iterator[Callable[[str], ServedMesh]]:
    """The mesh that serves a model, by name; each is started once and shared."""
    with ExitStack() as running:
        started: dict[str, ServedMesh] = {}

        def get(model: str) -> ServedMesh:
            if model not in started:
                models("silero-vad")
                models("diarizer-online")
                models(model)
                started[model] = running.enter_context(serve(model))
            return started[model]

        yield get


@pytest.fixture(scope="session")
def mesh_tiny(mesh: Callable[[str], ServedMesh]) -> ServedMesh:
    """A mesh with tiny.en: quick, English only."""
    return mesh("tiny.en")


@pytest.fixture(scope="session")
def mesh_base(mesh: Callable[[str], ServedMesh]) -> ServedMesh:
    """A mesh with base: multilingual."""
    return mesh("base")


@pytest.fixture(scope="session")
def own_mesh(models: Models) -> Callable[..., AbstractContextManager[ServedMesh]]:
    """Runs a mesh that the test may kill: a context manager, called with the model."""
    models("silero-vad")
    models("diarizer-online")
    return serve


@contextmanager
def serve(
    model: str, *options: str, start_s: float = 120, **variables: str
) -> Iterator[ServedMesh]:
    """Run ``voxmesh serve`` on free ports for as long as the block takes, then stop it kindly.

    What else it finds in its environment can be named.
    """
    port, grpc_port, metrics_port = _free_ports()
    with TemporaryDirectory(prefix="voxmesh-test-") as folder:
        output = Path(folder) / "output"
        command = [
            *(sys.executable, "-m", "services.cli", "serve", "--offline", "--verbose"),
            *("--model", model, "--port", str(port), "--grpc-port", str(grpc_port)),
            *("--metrics-port", str(metrics_port), *options),
        ]
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "XDG_RUNTIME_DIR": folder} | variables,
            )
        try:
            _await_welcome(process, output, start_s)
            yield ServedMesh(process.pid, port, grpc_port, metrics_port, output)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=60) == 0, output.read_text(errors="replace")[-4000:]
        finally:
            process.kill()
            process.wait()


def _await_welcome(process: subprocess.Popen[bytes], output: Path, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while "Ctrl-C stops it." not in output.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the mesh did not start:\n{output.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)  # for the services to load their models


def _free_ports() -> tuple[int, int, int]:
    """Two free ports, and the first of four in a row."""
    while True:
        with ExitStack() as held:
            ports = [_listen(held, 0) for _ in range(3)]
            try:
                for offset in (1, 2, 3):
                    _listen(held, ports[2] + offset)
            except (OSError, OverflowError):
                continue
            return ports[0], ports[1], ports[2]


def _listen(held: ExitStack, port: int) -> int:
    probe = held.enter_context(socket.socket())
    probe.bind(("127.0.0.1", port))
    return int(probe.getsockname()[1])
