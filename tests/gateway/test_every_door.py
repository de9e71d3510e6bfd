"""Every route and every method asks for a key: whoever adds one cannot forget it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from starlette.routing import BaseRoute, Route, WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from services.gateway.app import create_app
from services.gateway.servicer import SERVICE_NAMES
from tests.gateway.conversing import gateway_channel
from tests.gateway.fakes import FakeAsr, FakeVad, Mesh, running, served, write_keys
from tests.settings.serving import until
from voxmesh.foreign.riva import riva_asr_pb2 as riva_pb
from voxmesh.gateway.v1 import gateway_pb2 as pb

OPEN = {
    *("/health", "/ready", "/metrics", "/v1/status", "/v1/status/engine"),
    *("/openapi.json", "/asyncapi.json"),
}
"""They tell nothing of anybody, and those who ask have no keys."""
BAD_KEYS = {"none": {}, "wrong": {"Authorization": "Bearer wrong"}}


def doors(mesh: Mesh) -> Iterator[BaseRoute]:
    """Every route that is served, but for those that are open to all."""
    for route in create_app(mesh.gateway).routes:
        assert isinstance(route, Route | WebSocketRoute)
        if route.path not in OPEN:
            yield route


async def refusals(mesh: Mesh, port: int, headers: dict[str, str]) -> dict[str, int]:
    """What every route answers; 101 is a WebSocket that was accepted."""
    answers = {}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for route in doors(mesh):
            assert isinstance(route, Route | WebSocketRoute)
            path = route.path.replace("{id:path}", "base")
            if isinstance(route, Route):
                for method in route.methods or ():
                    answer = await client.request(method, path, headers=headers)
                    answers[f"{method} {path}"] = answer.status_code
                continue
            try:
                async with connect(
                    f"ws://127.0.0.1:{port}{path}", additional_headers=headers, proxy=None
                ):
                    answers[path] = 101
            except InvalidStatus as refused:
                answers[path] = refused.response.status_code
    return answers


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_wrong_or_missing_key_opens_nothing(key: str) -> None:
    async with (
        running(FakeVad([]), FakeAsr(), keys={"alice": "a"}) as mesh,
        served(mesh.gateway) as port,
    ):
        answers = await refusals(mesh, port, BAD_KEYS[key])
    assert len(answers) >= 9
    assert set(answers.values()) == {401}


async def test_a_revoked_key_opens_nothing_any_more(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", {"alice": "a", "bob": "b"})
    async with (
        running(FakeVad([]), FakeAsr(), keys_file=str(path)) as mesh,
        served(mesh.gateway) as port,
    ):
        alice = {"Authorization": "Bearer a"}
        assert 401 not in (await refusals(mesh, port, alice)).values()
        write_keys(path, {"bob": "b"})
        await until(lambda: mesh.gateway.keys.caller(["a"]) is None)
        assert set((await refusals(mesh, port, alice)).values()) == {401}


async def test_pages_of_other_sites_open_nothing() -> None:
    """A page that a user has open must not reach the gateway in their name."""
    async with (
        running(FakeVad([]), FakeAsr(), origins=("https://good.example",)) as mesh,
        served(mesh.gateway) as port,
    ):
        answers = await refusals(mesh, port, {"Origin": "https://evil.example"})
    assert set(answers.values()) == {403}


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
async def test_every_method_asks_for_a_key(metadata: tuple[tuple[str, str], ...]) -> None:
    files = (pb.DESCRIPTOR, riva_pb.DESCRIPTOR)
    services = [service for file in files for service in file.services_by_name.values()]
    assert sorted(SERVICE_NAMES) == sorted(service.full_name for service in services)
    async with gateway_channel(keys={"alice": "a"}) as (_, channel):
        for service in services:
            for method in service.methods:
                # On the wire every method is a stream of messages.
                call: Any = channel.stream_stream(f"/{service.full_name}/{method.name}")(
                    metadata=metadata
                )
                assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
