"""A mesh of its own for a bench: ``voxmesh serve`` on free ports."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil

_READY_S = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running mesh."""

    url: str
    process: psutil.Process


@contextmanager
def served(model: str) -> Iterator[Served]:
    """Serve a model for the length of the ``with`` block.

    Raises:
        TimeoutError: The mesh was not ready in two minutes.

    """
    port, grpc_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "services.cli", "serve", "--model", model]
    command += ["--port", str(port), "--grpc-port", str(grpc_port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url)
            yield Served(url, psutil.Process(child.pid))
        finally:
            child.terminate()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} was not ready after {_READY_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
