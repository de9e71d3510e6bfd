import httpx
import pytest
from websockets import Subprotocol
from websockets.asyncio.client import connect

from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served


async def get(port: int, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        return await client.get(path, headers=headers)


async def test_health_and_readiness_tell_the_truth() -> None:
    """P30."""
    async with running(FakeVad([]), FakeAsr()) as mesh, served(mesh.gateway) as port:
        health = await get(port, "/health")
        assert health.json() == {"status": "ok", "backend": "fake/cpu", "ready": True}
        ready = await get(port, "/ready")
        assert (ready.status_code, ready.json()) == (
            200,
            {"ready": True, "stages": {"vad": True, "asr": True}},
        )
        await mesh.asr_replica.kill()
        ready = await get(port, "/ready")
        assert (ready.status_code, ready.json()) == (
            503,
            {"ready": False, "stages": {"vad": True, "asr": False}},
        )
        assert (await get(port, "/health")).json()["ready"] is False
        await mesh.asr_replica.start()
        assert (await get(port, "/ready")).status_code == 200


@pytest.mark.trap(8)
async def test_an_unknown_path_is_an_error_that_every_sdk_reads() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh, served(mesh.gateway) as port:
        answer = await get(port, "/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert answer.json()["err_msg"] == "Not Found"


async def test_a_draining_gateway_is_not_ready() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh, served(mesh.gateway) as port:
        await mesh.gateway.drain(0)
        assert (await get(port, "/ready")).status_code == 503
        assert not await mesh.gateway.healthy()


async def test_metrics_are_prometheus_text() -> None:
    async with running(FakeVad([]), FakeAsr()) as mesh, served(mesh.gateway) as port:
        answer = await get(port, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "voxmesh_sessions" in answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/ready", "/metrics", "/v1/status", "/v1/status/engine"),
        *("/openapi.json", "/asyncapi.json"),
    ],
)
async def test_probes_and_documents_need_no_key(path: str) -> None:
    mesh: Mesh
    async with (
        running(FakeVad([]), FakeAsr(), keys={"alice": "secret"}) as mesh,
        served(mesh.gateway) as port,
    ):
        assert (await get(port, path)).status_code == 200
        refused = await get(port, "/v1/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert (await get(port, "/v1/models", authorization="Bearer secret")).status_code == 200


@pytest.mark.parametrize("path", ["/asr", "/v1/converse", "/v1/listen", "/v1/realtime"])
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["token", "a"], "token"),
        (["bearer", "a"], "bearer"),
        (["realtime", "openai-insecure-api-key.a"], "realtime"),
        (["token", "a", "x-deepgram-session-id", "5b"], "token"),
        (["chat"], None),
    ],
)
async def test_browsers_are_told_which_of_their_subprotocols_is_spoken(
    path: str, offered: list[str], chosen: str | None
) -> None:
    async with (
        running(FakeVad([]), FakeAsr(), keys={"alice": "a"}) as mesh,
        served(mesh.gateway) as port,
        connect(
            f"ws://127.0.0.1:{port}{path}?token=a",
            subprotocols=[Subprotocol(name) for name in offered],
            proxy=None,
        ) as socket,
    ):
        assert socket.subprotocol == chosen
