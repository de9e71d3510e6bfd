"""Several replicas of every stage and a gateway, as processes that may be killed."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from services.cli.supervisor import Child, Limits, Supervisor
from services.common.channel import open_channel, serves
from services.common.models import locate
from tests.conftest import ROOT
from tests.robustness.replica import SCRIPT

_NAMES = {
    "vad": "voxmesh.vad.v1.VadService",
    "asr": "voxmesh.asr.v1.AsrService",
    "diarizer": "voxmesh.diarizer.v1.DiarizerService",
    "translator": "voxmesh.translator.v1.TranslatorService",
    "gateway": "voxmesh.gateway.v1.GatewayService",
}
_IMPORTS = f"{ROOT}{os.pathsep}{ROOT / 'proto' / 'gen'}"


class Fleet:
    """A mesh with several replicas of each stage. What dies is started again."""

    def __init__(
        self,
        folder: Path,
        *,
        script: Path | None = None,
        diarizers: bool = False,
        translators: bool = False,
        model: str = "",
        replicas: int = 2,
        gateway: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing starts before ``run``.

        Args:
            folder: Where logs go.
            script: What the recognisers hear, as ``marks.save`` wrote it.
            diarizers: Whether there are some, who know who says it.
            translators: Whether there are some, who shout.
            model: Name in the catalogue of the model that hears instead.
            replicas: Of each stage.
            gateway: Settings of the gateway, as environment variables.

        """
        self.folder = folder
        ports = _free_ports(4 * replicas + 2)
        vads, asrs, voices, languages = (
            ports[at * replicas : (at + 1) * replicas] for at in range(4)
        )
        self.grpc_port, self.port = ports[-2:]
        self.grpc_target = f"127.0.0.1:{self.grpc_port}"
        if script is not None:
            module, asr = "tests.robustness.replica", {"ASR_MODEL": "marks", SCRIPT: str(script)}
        else:
            # Few are refused, however slow: it is not about how many there is room for.
            slow = {"ASR_THREADS": "1"} | dict.fromkeys(
                ("ASR_ADMIT_STEP_MS", "ASR_MAX_STEP_MS"), "10000"
            )
            module, asr = "services.asr", {"ASR_MODEL": model, **slow}
        silero = str(locate("silero-vad") / "silero_vad.onnx")
        stages = [
            *(
                self._child(f"vad-{port}", "services.vad", port, {"VAD_MODEL": silero})
                for port in vads
            ),
            *(
                self._child(f"asr-{port}", module, port, {"ASR_WORKERS": "1", **asr})
                for port in asrs
            ),
        ]
        environment: dict[str, str] = {}
        if diarizers:
            stages += [
                self._child(f"diarizer-{port}", "tests.robustness.diarizer_replica", port, {})
                for port in voices
            ]
            # Words wait for their speakers for as long as it takes: guesses could not be judged.
            environment = {
                "GATEWAY_DIARIZER_TARGET": _target(voices),
                "GATEWAY_DIARIZER_PATIENCE_S": "60",
                "GATEWAY_SPEAKER_WAIT_S": "60",
            }
        if translators:
            stages += [
                self._child(f"translator-{port}", "tests.robustness.translator_replica", port, {})
                for port in languages
            ]
            environment |= {
                "GATEWAY_TRANSLATOR_TARGET": _target(languages),
                "GATEWAY_TRANSLATION_WAIT_S": "60",
            }
        environment |= {
            "GATEWAY_GRPC_ADDRESS": self.grpc_target,
            "GATEWAY_PORT": str(self.port),
            "GATEWAY_VAD_TARGET": _target(vads),
            "GATEWAY_ASR_TARGETS": f'["{_target(asrs)}"]',
            **(gateway or {}),
        }
        front = self._child("gateway", "services.gateway", self.grpc_port, environment)
        self._supervisor = Supervisor(
            (stages, (front,)),
            report=lambda _line: None,
            limits=Limits(backoff_s=0.1, max_backoff_s=0.5),
        )

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Bring the fleet up, do the work, bring it down."""
        await self._supervisor.run(work)

    @property
    def workers(self) -> list[str]:
        """The replicas that run now."""
        return [name for name in self._supervisor.pids if name != "gateway"]

    @property
    def restarts(self) -> int:
        """How often replicas were started again."""
        return sum(self._supervisor.restarts.values())

    def pid(self, name: str) -> int | None:
        """The process that a replica is now; None: it is not running."""
        return self._supervisor.pids.get(name)

    async def serves(self, name: str) -> bool:
        """Whether a replica is ready."""
        stage, _, port = name.partition("-")
        return await _serves(f"127.0.0.1:{port}", _NAMES[stage])

    def send(self, name: str, signum: signal.Signals) -> None:
        """Send a signal to a replica, if it runs."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, signum)

    def log_of(self, name: str) -> str:
        """What a process wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _child(self, name: str, module: str, port: int, settings: Mapping[str, str]) -> Child:
        stage = name.partition("-")[0]
        address = f"127.0.0.1:{port}"
        prefix = stage.upper()
        return Child(
            name=name,
            command=(sys.executable, "-m", module),
            ready=partial(_serves, address, _NAMES[stage]),
            environment={
                "PYTHONPATH": _IMPORTS,
                f"{prefix}_ADDRESS": address,
                f"{prefix}_DRAIN_S": "10",
                **settings,
            },
            log=self.folder / f"{name}.log",
        )


async def _serves(address: str, service: str) -> bool:
    async with open_channel(address) as channel:
        return await serves(channel, service, timeout_s=2.0)


def _target(ports: list[int]) -> str:
    """Several replicas as one target: what a service's name resolves to in a cluster."""
    return "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
