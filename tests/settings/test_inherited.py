"""What every service inherits.

The code behind is shared: its effect is shown with the VAD, the cheapest to start, and each of the
others is shown to hand over what it was given.
"""

import asyncio
import json
import os
import runpy
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.asr.config import Settings as AsrSettings
from services.common import logs, process, telemetry
from services.common.channel import open_channel, serves
from services.common.settings import ServiceSettings
from services.diarizer.config import Settings as DiarizerSettings
from services.gateway.config import Settings as GatewaySettings
from services.translator.config import Settings as TranslatorSettings
from services.vad.config import Settings as VadSettings
from tests.settings.flips import Flip, environment, flips
from tests.vad.harness import FINISH, converse, opening
from voxmesh.vad.v1 import vad_pb2_grpc

ROOT = Path(__file__).parents[2]

Models = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Replica:
    """A VAD in a process of its own."""

    process: asyncio.subprocess.Process
    stub: vad_pb2_grpc.VadServiceStub

    async def stop(self) -> list[dict[str, Any]]:
        """End it kindly; what it has logged."""
        self.process.terminate()
        _, errors = await asyncio.wait_for(self.process.communicate(), 20)
        assert self.process.returncode == 0
        return [json.loads(line) for line in errors.splitlines()]


@asynccontextmanager
async def replica(models: Models, folder: Path, **chosen: object) -> AsyncIterator[Replica]:
    address = f"unix:{folder}/vad.sock"
    model = str(models("silero-vad") / "silero_vad.onnx")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VAD_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.vad"),
        cwd=ROOT,
        env=clean | environment(VadSettings, address=address, model=model, **chosen),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with open_channel(address) as channel:
            assert await serves(channel, "", timeout_s=30)
            yield Replica(process, vad_pb2_grpc.VadServiceStub(channel))
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def answers(url: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return "voxmesh_streams" in (await client.get(url)).text
        except httpx.ConnectError:
            return False


@flips("VAD", metrics_port={0: False, 1: True})
async def test_metrics_are_served_on_their_port_if_there_is_one(
    flip: Flip, models: Models, tmp_path: Path, unused_tcp_port: int
) -> None:
    port = unused_tcp_port if flip.value else 0
    async with replica(models, tmp_path, metrics_port=port):
        assert await answers(f"http://127.0.0.1:{unused_tcp_port}/metrics") is flip.effect


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has more than one loopback address")
@flips("VAD", metrics_host={"127.0.0.1": [True, False], "127.0.0.2": [False, True]})
async def test_metrics_are_served_on_their_address_alone(
    flip: Flip, models: Models, tmp_path: Path, unused_tcp_port: int
) -> None:
    chosen = {"metrics_port": unused_tcp_port, "metrics_host": flip.value}
    async with replica(models, tmp_path, **chosen):
        hosts = ("127.0.0.1", "127.0.0.2")
        urls = [f"http://{host}:{unused_tcp_port}/metrics" for host in hosts]
        assert [await answers(url) for url in urls] == flip.effect


@flips("VAD", log_level={"info": ["serving", "draining"], "warning": []})
async def test_lines_less_serious_than_the_level_are_not_written(
    flip: Flip, models: Models, tmp_path: Path
) -> None:
    async with replica(models, tmp_path, log_level=flip.value) as running:
        lines = await running.stop()
    assert [line["event"] for line in lines] == flip.effect


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OpenTelemetry collector that keeps the names of the spans."""

    def __init__(self) -> None:
        self.spans: list[str] = []

    async def Export(  # noqa: N802 -- gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@flips("VAD", otlp_endpoint={"": [], "http://127.0.0.1:{port}": ["vad.detect"]})
async def test_spans_are_sent_to_the_collector_if_there_is_one(
    flip: Flip, models: Models, tmp_path: Path
) -> None:
    collector, listening = Collector(), grpc.aio.server()
    add = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(collector, listening)  # type: ignore[no-untyped-call]  # generated without types
    port = listening.add_insecure_port("127.0.0.1:0")
    await listening.start()
    endpoint = flip.value.format(port=port)
    async with replica(models, tmp_path, otlp_endpoint=endpoint) as running:
        await converse(running.stub, [opening(), FINISH])
        await running.stop()
    await listening.stop(grace=0)
    assert collector.spans == flip.effect


SHARED: dict[str, tuple[type[ServiceSettings], dict[str, object]]] = {
    "ASR": (AsrSettings, {"model": "tiny.en"}),
    "DIARIZER": (DiarizerSettings, {}),
    "TRANSLATOR": (TranslatorSettings, {}),
    "GATEWAY": (GatewaySettings, {}),
}
"""Each service's settings, and those that it cannot do without."""


@flips(
    *SHARED,
    metrics_port={0: ("metrics", "127.0.0.1", 0), 9100: ("metrics", "127.0.0.1", 9100)},
    metrics_host={"127.0.0.1": ("metrics", "127.0.0.1", 0), "::1": ("metrics", "::1", 0)},
    log_level={"info": ("logs", "{service}", "info"), "error": ("logs", "{service}", "error")},
    otlp_endpoint={
        "": ("traces", "{service}", ""),
        "http://collector:4317": ("traces", "{service}", "http://collector:4317"),
    },
)
def test_what_a_service_inherits_reaches_the_code_that_all_share(
    flip: Flip, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(logs, "configure", lambda *args: asked.append(("logs", *args)))
    monkeypatch.setattr(telemetry, "start_metrics", lambda *args: asked.append(("metrics", *args)))
    monkeypatch.setattr(telemetry, "start_tracing", lambda *args: asked.append(("traces", *args)))

    def run(main: Coroutine[Any, Any, None]) -> None:
        asked.append(("run",))
        main.close()

    monkeypatch.setattr(process, "run", run)
    kind, needed = SHARED[flip.owner]
    for name, value in environment(kind, **needed, **{flip.name: flip.value}).items():
        monkeypatch.setenv(name, value)
    service = flip.owner.lower()
    # Or it would be run a second time in the place of the first.
    monkeypatch.delitem(sys.modules, f"services.{service}.__main__", raising=False)
    with suppress(SystemExit):
        runpy.run_module(f"services.{service}", run_name="__main__")
    effect = tuple(
        part.format(service=service) if isinstance(part, str) else part for part in flip.effect
    )
    assert effect in asked
    assert asked[-1] == ("run",)
