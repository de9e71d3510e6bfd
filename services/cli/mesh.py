"""The mesh on one machine: which processes it is made of, and where they meet.

The same services as in a cluster, on Unix sockets in a private folder: the folder is new each time,
so nothing a killed mesh left behind is ever in the way.
"""

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import httpx

from services.cli.supervisor import Child, Supervisor
from services.common.catalogue import CATALOGUE
from services.common.channel import open_channel, serves
from services.common.models import locate

_METRICS_ORDER = ("gateway", "vad", "asr", "diarizer", "translator")
_PROBE_S = 2.0
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, the final zero among them.
_SOCKET_PATH_BYTES = 103
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class PortError(Exception):
    """The port cannot be listened on; the message says which, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """What a mesh is to be like."""

    model: str = "base"
    """Name in the catalogue, or a folder."""
    language: str = ""
    """Of sessions that name none; empty: detect it."""
    host: str = "127.0.0.1"
    port: int = 8000
    """For HTTP and WebSocket; 0: any free one."""
    grpc_port: int = 50050
    """For gRPC; 0: any free one."""
    threads: int = 0
    """Cores that the recogniser uses; 0: as it likes."""
    metrics_port: int = 0
    """Gateway's metrics; VAD, ASR, diarizer and translator get the four after it. 0: none."""
    diarizer: bool = False
    """Whether there is one."""
    diarize: bool = False
    """Whether speakers are told apart in sessions of clients that cannot ask for it."""
    translator: bool = False
    """Whether there is one."""
    translate_into: str = ""
    """Language into which sessions of /asr are translated that name none; empty: none."""
    max_sessions: int = 0
    """Sessions served at once; 0: the gateway's default."""
    log_level: str = "info"
    drain_s: float = 10.0
    """How long a stopping mesh lets its sessions finish."""
    tls_cert: str = ""
    """Certificate for clients, PEM; empty: they speak plaintext."""
    tls_key: str = ""
    """Its private key, PEM."""
    private: bool = False
    """For one job of ours: whatever keys the environment asks clients for, it asks for none."""
    verbose: bool = False
    """Write the logs to stderr instead of files."""

    def with_free_ports(self) -> "MeshOptions":
        """The same, every 0 among the ports replaced and every port known to be free.

        Raises:
            PortError: Somebody else listens on one of them.

        """
        if self.metrics_port:
            for service in _METRICS_ORDER:
                _free("127.0.0.1", self.metrics_port_of(service), "--metrics-port")
        return replace(
            self,
            port=_free(self.host, self.port, "--port"),
            grpc_port=_free(self.host, self.grpc_port, "--grpc-port"),
        )

    def with_free_metrics_port(self) -> "MeshOptions":
        """The same, with metrics on ports that are free."""
        # Five in a row: a free one with free neighbours is found at the first or second try.
        while True:
            options = replace(self, metrics_port=_free("127.0.0.1", 0, "--metrics-port"))
            with suppress(PortError, OverflowError):
                for service in _METRICS_ORDER:
                    _free("127.0.0.1", options.metrics_port_of(service), "--metrics-port")
                return options

    def metrics_port_of(self, service: str) -> int:
        """Port of a service's metrics; 0: none."""
        return self.metrics_port + _METRICS_ORDER.index(service) if self.metrics_port else 0


class Mesh:
    """One gateway and one replica of each stage under a supervisor."""

    def __init__(
        self, options: MeshOptions, folder: Path, *, report: Callable[[str], None]
    ) -> None:
        """Prepare; nothing starts before ``run``.

        Args:
            options: What it is to be like; its ports are free.
            folder: Where sockets and logs go; private to this mesh.
            report: Is told in a line what happens to the processes.

        """
        self.options = options
        self.folder = folder
        address = _ANY_ADDRESS.get(options.host, options.host)
        secure = "s" if options.tls_cert else ""
        self.http_url = f"http{secure}://{_join(address, options.port)}"
        self.ws_url = f"ws{secure}://{_join(address, options.port)}"
        self.grpc_target = _join(address, options.grpc_port)
        stages = [self._stage("vad", self._vad()), self._stage("asr", self._asr())]
        if options.diarizer:
            stages.append(self._stage("diarizer", {}))
        if options.translator:
            stages.append(self._stage("translator", {}))
        self.waves = (tuple(stages), (self._gateway(),))
        """The processes, in the order in which they start."""
        self.supervisor = Supervisor(self.waves, report=report)

    @property
    def services(self) -> list[str]:
        """What it is made of."""
        return [child.name for wave in self.waves for child in wave]

    def run(self, work: Callable[["Mesh"], Coroutine[Any, Any, None]]) -> None:
        """Bring the mesh up, do the work, bring it down.

        Raises:
            StartError: A service did not come up.

        """
        asyncio.run(self.supervisor.run(lambda: work(self)))

    def metrics_url(self, service: str) -> str:
        """Where a service shows its metrics, if the mesh has any."""
        return f"http://127.0.0.1:{self.options.metrics_port_of(service)}/metrics"

    def _socket(self, name: str) -> Path:
        return self.folder / f"{name}.sock"

    def _vad(self) -> dict[str, str]:
        return {"VAD_MODEL": str(locate("silero-vad") / "silero_vad.onnx")}

    def _asr(self) -> dict[str, str]:
        model = self.options.model
        name = model if model in CATALOGUE else str(locate(model).resolve())
        threads = {"ASR_THREADS": str(self.options.threads)} if self.options.threads else {}
        return {"ASR_MODEL": name, **threads}

    def _stage(self, name: str, environment: dict[str, str]) -> Child:
        path = self._socket(name)

        async def ready() -> bool:
            if not path.exists():
                return False
            # A new channel each time: one that failed waits a second before it tries again.
            async with open_channel(f"unix:{path}") as channel:
                return await serves(channel, "", timeout_s=_PROBE_S)

        address = {f"{name.upper()}_ADDRESS": f"unix:{path}"}
        return self._child(name, {**address, **environment}, ready, socket=path)

    def _gateway(self) -> Child:
        options = self.options

        async def ready() -> bool:
            # A proxy that the environment names knows no way to this machine, and the certificate
            # is made out to the name by which clients call it.
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=_PROBE_S) as client:
                try:
                    answer = await client.get(f"{self.http_url}/ready")
                except httpx.HTTPError:
                    return False
            return answer.is_success

        diarizer = f"unix:{self._socket('diarizer')}" if options.diarizer else ""
        translator = f"unix:{self._socket('translator')}" if options.translator else ""
        environment = {
            "GATEWAY_HOST": options.host,
            "GATEWAY_PORT": str(options.port),
            "GATEWAY_GRPC_ADDRESS": _join(options.host, options.grpc_port),
            "GATEWAY_VAD_TARGET": f"unix:{self._socket('vad')}",
            "GATEWAY_ASR_TARGETS": json.dumps([f"unix:{self._socket('asr')}"]),
            "GATEWAY_DIARIZER_TARGET": diarizer,
            "GATEWAY_DIARIZE": str(options.diarize),
            "GATEWAY_TRANSLATOR_TARGET": translator,
            "GATEWAY_TARGET_LANGUAGE": options.translate_into,
            "GATEWAY_LANGUAGE": options.language,
            "GATEWAY_TLS_CERT_FILE": options.tls_cert,
            "GATEWAY_TLS_KEY_FILE": options.tls_key,
        }
        if options.max_sessions:
            environment["GATEWAY_MAX_SESSIONS"] = str(options.max_sessions)
        if options.private:
            environment["GATEWAY_KEYS_FILE"] = ""
        return self._child("gateway", environment, ready)

    def _child(
        self,
        name: str,
        environment: dict[str, str],
        ready: Callable[[], Coroutine[Any, Any, bool]],
        *,
        socket: Path | None = None,
    ) -> Child:
        options, prefix = self.options, name.upper()
        common = {
            f"{prefix}_LOG_LEVEL": options.log_level,
            f"{prefix}_DRAIN_S": str(options.drain_s),
            f"{prefix}_METRICS_PORT": str(options.metrics_port_of(name)),
        }
        return Child(
            name,
            # -P: a folder called services where the user happens to stand is not ours.
            (sys.executable, "-P", "-m", f"services.{name}"),
            ready,
            environment={**common, **environment},
            log=None if options.verbose else self.folder / f"{name}.log",
            socket=socket,
        )


@contextmanager
def runtime_folder() -> Iterator[Path]:
    """A private folder for sockets and logs; if the block fails and there are logs, it stays."""
    chosen = os.environ.get("XDG_RUNTIME_DIR", "")
    base = Path(chosen) if chosen and os.access(chosen, os.W_OK) else None
    folder = Path(mkdtemp(prefix="voxmesh-", dir=base))
    if len(os.fsencode(folder / "translator.sock")) > _SOCKET_PATH_BYTES:
        folder.rmdir()
        folder = Path(mkdtemp(prefix="voxmesh-", dir="/tmp"))
    try:
        yield folder
    except BaseException:
        if not any(folder.glob("*.log")):
            shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _free(host: str, port: int, option: str) -> int:
    """The port, or any free one for 0, as far as binding to it for a moment can tell."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections that are still closing are no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise PortError(
                f"cannot listen on {_join(host, port)} ({error.strerror}): stop who does,"
                f" or choose another with {option}"
            ) from error
        return int(probe.getsockname()[1])
