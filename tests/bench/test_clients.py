"""The clients of the soak, against a gateway with scripted stages."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from bench import clients
from bench.clients import BEHAVIOURS, Client, UnexpectedEndError
from bench.corpus import BYTES_PER_S, Clip
from bench.mesh import Served
from tests.bench.serving import gateway

CLIP = Clip("clip", bytes(3 * BYTES_PER_S), "", "en")


def client(mesh: Served, *, seed: int = 0) -> Client:
    return Client(mesh, CLIP, 4.0, random.Random(seed))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_PAUSES_S", (0.1, 0.2))
    monkeypatch.setattr(clients, "_READING_S", 0.1)


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_whatever_a_client_does_it_ends_as_it_may(name: str) -> None:
    async with gateway(0.5, 1.5, resume_s=2.0) as mesh:
        for seed in range(3):
            end = await BEHAVIOURS[name](client(mesh, seed=seed))
            if name == "leaves without a word":
                assert end == "left"
            elif name != "sends what is broken":
                assert end == "finished"


async def test_whoever_comes_to_a_full_mesh_is_refused_at_every_door() -> None:
    async with gateway(0.5, max_sessions=2) as mesh, clients.crowd(mesh, 2):
        ends = {await clients.knocking(client(mesh, seed=seed)) for seed in range(16)}
    assert ends == {"RESOURCE_EXHAUSTED", "HTTP 429", "HTTP 503"}


async def test_a_crowd_comes_in_when_there_is_room_for_all_of_it() -> None:
    async with gateway(0.5, max_sessions=2) as mesh, AsyncExitStack() as second:
        async with clients.crowd(mesh, 1):
            waits = asyncio.create_task(second.enter_async_context(clients.crowd(mesh, 2)))
            await asyncio.sleep(0.3)
            assert not waits.done()
        await waits


async def test_to_be_served_by_a_full_mesh_is_not_expected() -> None:
    async with gateway(0.5) as mesh:
        with pytest.raises(UnexpectedEndError, match="not refused: finished"):
            await clients.knocking(client(mesh))


@pytest.mark.parametrize(
    "name", ["`Converse` to the end", "`/asr` to the end", "uploads", "pauses"]
)
async def test_to_hear_nothing_is_not_expected(name: str) -> None:
    async with gateway() as mesh:
        with pytest.raises(UnexpectedEndError, match="nothing was heard"):
            await BEHAVIOURS[name](client(mesh))


async def test_whoever_was_to_leave_and_could_not_says_so() -> None:
    async with gateway(0.5, max_sessions=1) as mesh, clients.crowd(mesh, 1):
        with pytest.raises(UnexpectedEndError):
            await clients.leaving(client(mesh, seed=3))
