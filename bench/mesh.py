"""A mesh of its own for a bench: ``voxmesh serve`` on free ports."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import psutil

from services.cli.mesh import MeshOptions

SERVICES = ("gateway", "vad", "asr")
_READY_S = 180.0
_SAMPLE_S = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running mesh."""

    url: str
    grpc_target: str
    process: psutil.Process
    metrics_urls: Mapping[str, str] = field(default_factory=dict)
    """Where each service shows its metrics."""

    @property
    def ws_url(self) -> str:
        """Of ``WS /asr``."""
        return f"ws{self.url.removeprefix('http')}/asr"

    def cpu_s(self) -> float:
        """CPU time that its processes have used so far, in seconds."""
        used = [process.cpu_times() for process in self._processes()]
        return sum(times.user + times.system for times in used)

    def memory_bytes(self) -> int:
        """Memory that is resident for its processes and for no other, in bytes."""
        total = 0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().uss
        return total

    def service(self, name: str) -> psutil.Process:
        """A service's process."""
        return next(
            process for process in self._processes() if f"services.{name}" in process.cmdline()[-1:]
        )

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def served(
    model: str, environment: Mapping[str, str] | None = None, *, translator: bool = False
) -> Iterator[Served]:
    """Serve a model for the length of the ``with`` block.

    Args:
        model: Its name in the catalogue, or its folder.
        environment: Settings of the services, such as ``ASR_MIN_STEP_MS``.
        translator: Whether there is one.

    Raises:
        TimeoutError: The mesh was not ready in three minutes.
        RuntimeError: It ended before it was ready.

    """
    options = MeshOptions(port=free_port(), grpc_port=free_port()).with_free_metrics_port()
    command = [sys.executable, "-m", "services.cli", "serve", "--model", model]
    command += ["--port", str(options.port), "--grpc-port", str(options.grpc_port)]
    command += ["--metrics-port", str(options.metrics_port)]
    command += ["--no-diarizer", "--translator" if translator else "--no-translator"]
    settings = os.environ | (environment or {})
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=settings) as child:
        try:
            mesh = Served(
                f"http://127.0.0.1:{options.port}",
                f"127.0.0.1:{options.grpc_port}",
                psutil.Process(child.pid),
                {
                    name: f"http://127.0.0.1:{options.metrics_port_of(name)}/metrics"
                    for name in SERVICES
                },
            )
            _wait_until_ready(mesh, child)
            yield mesh
        finally:
            child.terminate()


def _wait_until_ready(mesh: Served, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{mesh.url}/ready", trust_env=False).is_success:
                return
        if child.poll() is not None:
            raise RuntimeError(f"the mesh ended with status {child.returncode}")
        time.sleep(0.5)
    raise TimeoutError(f"{mesh.url} was not ready after {_READY_S:.0f} s")


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Sample:
    """What a mesh used in a few seconds, and for how much audio."""

    cpu_s: float
    audio_s: float
    wall_s: float
    memory_bytes: int
    """At the end of them."""

    def row(self) -> dict[str, Any]:
        """As a ledger keeps it."""
        return asdict(self)


class Meter:
    """Reads what a mesh uses while audio is sent to it."""

    def __init__(self, mesh: Served) -> None:
        self._mesh = mesh
        self._audio_s = 0.0
        self._cpu_s = mesh.cpu_s()
        self._read_at = time.monotonic()

    def sent(self, audio_s: float) -> None:
        """Take note of audio."""
        self._audio_s += audio_s

    def read(self) -> Sample:
        """What was used since the last reading."""
        return self._sample(*self._usage())

    async def next_sample(self) -> Sample:
        """What is used in the next seconds."""
        await asyncio.sleep(_SAMPLE_S)
        # Tens of milliseconds, in which clients on the event loop would be late.
        return self._sample(*await asyncio.to_thread(self._usage))

    def _usage(self) -> tuple[float, float, int]:
        return time.monotonic(), self._mesh.cpu_s(), self._mesh.memory_bytes()

    def _sample(self, now: float, cpu_s: float, memory_bytes: int) -> Sample:
        sample = Sample(
            cpu_s=round(cpu_s - self._cpu_s, 3),
            audio_s=round(self._audio_s, 3),
            wall_s=round(now - self._read_at, 3),
            memory_bytes=memory_bytes,
        )
        self._cpu_s, self._read_at, self._audio_s = cpu_s, now, 0.0
        return sample
