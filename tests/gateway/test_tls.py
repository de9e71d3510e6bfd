"""A gateway that speaks TLS with its clients, and proves to its stages who it is."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc.aio
import httpx
import pytest
from websockets.asyncio.client import connect

from services.common import tls, watched
from services.common.channel import open_channel
from services.common.server import serve
from services.common.tls import Identity
from services.gateway import __main__ as gateway_process
from services.gateway.config import Settings
from services.gateway.gateway import Gateway
from services.gateway.session import SessionConfig
from tests.certificates import Authority, Pair, shown
from tests.gateway.conversing import converse, words_of
from tests.gateway.fakes import RATE, FakeAsr, FakeVad, running, silence, spans_of, words_at
from tests.settings.serving import serving
from voxmesh.asr.v1 import asr_pb2_grpc
from voxmesh.gateway.v1 import gateway_pb2 as pb
from voxmesh.gateway.v1 import gateway_pb2_grpc as rpc
from voxmesh.vad.v1 import vad_pb2_grpc

ROOT = Path(__file__).parents[2]
SERVICE = "voxmesh.gateway.v1.GatewayService"
SAID = words_at(0.5, 1.5)
Ports: TypeAlias = Callable[[], int]
PCM = pb.Open(encoding=pb.ENCODING_LINEAR16)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_LOOK_EVERY_S", 0.01)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def foreign(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "foreign")


@dataclass(frozen=True, slots=True)
class Secured:
    """A gateway that speaks TLS."""

    ca: Authority
    pair: Pair
    port: int
    grpc_port: int
    channel: grpc.aio.Channel

    def client(self, verify: ssl.SSLContext | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"https://localhost:{self.port}",
            verify=verify or self.ca.context(),
            trust_env=False,
        )


@asynccontextmanager
async def secured(ca: Authority, ports: Ports) -> AsyncIterator[Secured]:
    pair = ca.issue("gateway")
    async with running(FakeVad(spans_of(SAID)), FakeAsr(SAID)) as mesh:
        chosen = Settings(
            vad_target=mesh.vad_replica.target,
            asr_targets=(mesh.asr_replica.target,),
            port=ports(),
            grpc_address=f"127.0.0.1:{(grpc_port := ports())}",
            tls_cert_file=str(pair.cert),
            tls_key_file=str(pair.key),
        )
        async with serving(
            gateway_process.main(chosen), chosen.grpc_address, SERVICE, ca.credentials()
        ) as channel:
            gateway = Secured(ca, pair, chosen.port, grpc_port, channel)
            async with gateway.client() as client, asyncio.timeout(10):
                while not (await client.get("/health")).json()["backend"]:
                    pass  # until it has found its recogniser
            yield gateway


async def test_clients_that_believe_the_ca_are_served_over_https_wss_and_grpc(
    ours: Authority, unused_tcp_port_factory: Ports
) -> None:
    async with secured(ours, unused_tcp_port_factory) as gateway:
        async with gateway.client() as client:
            assert (await client.get("/v1/models")).status_code == 200
        uri = f"wss://localhost:{gateway.port}/asr"
        async with connect(uri, ssl=ours.context(), proxy=None) as websocket:
            await websocket.send(bytes(2 * 2 * RATE))
            await websocket.send(b"")
            lines: list[dict[str, str]] = []
            while (told := json.loads(await websocket.recv())).get("type") != "ready_to_stop":
                lines = told.get("lines", lines)
        assert " ".join(line["text"] for line in lines).split() == ["w0", "w1"]
        stub = rpc.GatewayServiceStub(gateway.channel)
        answers = await converse(stub, PCM, [bytes(2 * 2 * RATE)])
        assert words_of(answers) == [" w0", " w1"]


async def test_clients_that_speak_plaintext_or_believe_another_ca_are_not_served(
    ours: Authority, foreign: Authority, unused_tcp_port_factory: Ports
) -> None:
    async with secured(ours, unused_tcp_port_factory) as gateway:
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get(f"http://localhost:{gateway.port}/health")
        async with gateway.client(foreign.context()) as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get("/health")
        for credentials in (None, foreign.credentials()):
            async with open_channel(f"localhost:{gateway.grpc_port}", credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await converse(rpc.GatewayServiceStub(channel), PCM, [])
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_new_certificate_is_for_new_connections_and_open_sessions_go_on(
    ours: Authority, unused_tcp_port_factory: Ports
) -> None:
    async with secured(ours, unused_tcp_port_factory) as gateway:
        uri = f"wss://localhost:{gateway.port}/v1/converse"
        async with connect(uri, ssl=ours.context(), proxy=None) as websocket:
            await websocket.send(json.dumps({"open": {"encoding": "ENCODING_LINEAR16"}}))
            assert "opened" in json.loads(await websocket.recv())
            gateway.pair.take(ours.issue("renewed"))
            for port in (gateway.port, gateway.grpc_port):
                async with asyncio.timeout(10):
                    while await shown(port, ours.context()) != "renewed":
                        pass
            await websocket.send(bytes(2 * 2 * RATE))
            await websocket.send(json.dumps({"finish": {}}))
            told = [json.loads(message) async for message in websocket]
        assert "finished" in told[-1]
        words = [word for one in told for word in one.get("captions", {}).get("words", [])]
        assert [word["text"] for word in words] == [" w0", " w1"]


async def test_a_broken_replacement_changes_nothing(
    ours: Authority, unused_tcp_port_factory: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    read = tls._read

    def watching(*files: Path) -> object:
        looked.set()
        return read(*files)

    monkeypatch.setattr(tls, "_read", watching)
    async with secured(ours, unused_tcp_port_factory) as gateway:
        looked.clear()
        gateway.pair.key.write_text("nothing")
        await looked.wait()
        for port in (gateway.port, gateway.grpc_port):
            assert await shown(port, ours.context()) == "gateway"


# --- at the start


def start(folder: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a gateway that is to refuse to start."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    nowhere = {"GATEWAY_PORT": "0", "GATEWAY_GRPC_ADDRESS": f"unix:{folder}/sock"}
    return subprocess.run(
        (sys.executable, "-m", "services.gateway"),
        cwd=ROOT,
        env=clean | nowhere | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("kind", ["TLS", "MTLS"])
def test_a_key_of_another_certificate_ends_the_process_with_the_reason(
    ours: Authority, tmp_path: Path, kind: str
) -> None:
    files = {"CERT_FILE": ours.issue("gateway").cert, "KEY_FILE": ours.issue("other").key}
    if kind == "MTLS":
        files["CA_FILE"] = ours.file
    named = {f"GATEWAY_{kind}_{name}": str(path) for name, path in files.items()}
    ended = start(tmp_path, **named)
    assert ended.returncode == 1
    line = json.loads(ended.stderr)
    assert line["event"] == "cannot start"
    assert f"{files['KEY_FILE']} is not the key of {files['CERT_FILE']}" in line["reason"]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"TLS_CERT_FILE": "a.pem"}, "GATEWAY_TLS_KEY_FILE: Value error, is set together with the"),
        ({"TLS_KEY_FILE": "a.key"}, "GATEWAY_TLS_KEY_FILE: Value error, is set together with the"),
        ({"MTLS_CA_FILE": "ca.pem"}, "GATEWAY_MTLS_KEY_FILE: Value error, is set together with"),
        (
            {"MTLS_CERT_FILE": "a.pem", "MTLS_KEY_FILE": "a.key"},
            "GATEWAY_MTLS_KEY_FILE: Value error, is set together with",
        ),
    ],
)
def test_one_file_without_the_others_ends_the_process_with_the_reason(
    tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    ended = start(tmp_path, **{f"GATEWAY_{name}": value for name, value in variables.items()})
    assert ended.returncode == 2
    assert reason in ended.stderr


# --- towards the stages


@dataclass(frozen=True, slots=True)
class Stages:
    """Stages that ask who is there."""

    vad_port: int
    asr_port: int


@asynccontextmanager
async def stages(ca: Authority, ports: Ports) -> AsyncIterator[Stages]:
    pair, stopping = ca.issue("stage"), asyncio.Event()
    vad, asr, found = FakeVad(spans_of(SAID)), FakeAsr(SAID), Stages(ports(), ports())

    async def stage(add: Callable[[grpc.aio.Server], None], name: str, port: int) -> None:
        await serve(
            add,
            service_names=[name],
            address=f"127.0.0.1:{port}",
            drain_s=0,
            stopping=stopping,
            identity=Identity(str(pair.cert), str(pair.key), str(ca.file)),
        )

    running_ = asyncio.gather(
        stage(
            lambda server: vad_pb2_grpc.add_VadServiceServicer_to_server(vad, server),
            "voxmesh.vad.v1.VadService",
            found.vad_port,
        ),
        stage(
            lambda server: asr_pb2_grpc.add_AsrServiceServicer_to_server(asr, server),
            "voxmesh.asr.v1.AsrService",
            found.asr_port,
        ),
    )
    try:
        yield found
    finally:
        stopping.set()
        await running_


@asynccontextmanager
async def gateway_of(
    found: Stages, ca: Authority | None, pair: Pair | None
) -> AsyncIterator[Gateway]:
    files = (
        {
            "mtls_ca_file": str(ca.file),
            "mtls_cert_file": str(pair.cert),
            "mtls_key_file": str(pair.key),
        }
        if ca and pair
        else {}
    )
    targets = {
        "vad_target": f"dns:///localhost:{found.vad_port}",
        "asr_targets": (f"localhost:{found.asr_port}",),
    }
    gateway = Gateway(Settings.model_validate(targets | files))
    try:
        yield gateway
    finally:
        await gateway.close()


async def test_a_gateway_that_its_stages_believe_gets_words_from_them(
    ours: Authority, unused_tcp_port_factory: Ports
) -> None:
    async with (
        stages(ours, unused_tcp_port_factory) as found,
        gateway_of(found, ours, ours.issue("gateway", "anywhere")) as gateway,
    ):
        await gateway.pools.describe()
        assert await gateway.ready() == {"vad": True, "asr": True}
        async with gateway.session(SessionConfig("s1", "test")) as session:
            await session.run(silence(2))
        assert session.transcript.words == SAID


@pytest.mark.parametrize("wrong", ["nothing", "certificate", "ca"])
async def test_a_gateway_that_its_stages_or_that_itself_does_not_believe_is_not_ready(
    ours: Authority, foreign: Authority, unused_tcp_port_factory: Ports, wrong: str
) -> None:
    presented = {
        "nothing": (None, None),
        "certificate": (ours, foreign.issue("stranger")),
        "ca": (foreign, ours.issue("gateway")),
    }
    async with (
        stages(ours, unused_tcp_port_factory) as found,
        gateway_of(found, *presented[wrong]) as gateway,
    ):
        assert await gateway.ready() == {"vad": False, "asr": False}
