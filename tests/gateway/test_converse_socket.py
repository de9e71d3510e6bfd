"""``/v1/converse``: the gateway's own protocol over a WebSocket."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.fakes import RATE, FakeAsr, FakeVad, running, served, spans_of, words_at
from tests.settings.serving import until

OPEN = {"open": {"encoding": "ENCODING_LINEAR16", "resumable": True}}
FINISH: dict[str, Any] = {"finish": {}}
TOO_LONG = '{"open": {"hotwords": [' + '"",' * 100_000 + '""]}}'
"""Seconds of work in a message of the longest frame."""


@asynccontextmanager
async def socket_url(*seconds: float, **settings: Any) -> AsyncIterator[str]:
    said = words_at(*seconds)
    async with (
        running(FakeVad(spans_of(said)), FakeAsr(said), **settings) as mesh,
        served(mesh.gateway) as port,
    ):
        yield f"ws://127.0.0.1:{port}/v1/converse"


def client(url: str, **options: Any) -> connect:
    return connect(url, proxy=None, open_timeout=10, **options)


async def rest(socket: ClientConnection) -> list[dict[str, Any]]:
    """Everything that comes until the gateway hangs up."""
    messages = []
    try:
        while True:
            messages.append(json.loads(await socket.recv()))
    except ConnectionClosed:
        return messages


def words_of(messages: list[dict[str, Any]]) -> list[str]:
    captions = [message["captions"] for message in messages if "captions" in message]
    return [word["text"] for caption in captions for word in caption.get("words", [])]


async def test_a_session_is_held_in_json_and_binary_audio() -> None:
    async with socket_url(1.0, 2.5) as url, client(url) as socket:
        await socket.send(json.dumps(OPEN))
        opened = json.loads(await socket.recv())["opened"]
        assert opened["session_id"]
        await socket.send(bytes(4 * RATE * 2))
        await socket.send(json.dumps({"flush": {"flush_id": 3}}))
        await socket.send(json.dumps(FINISH))
        messages = await rest(socket)
    assert words_of(messages) == [" w0", " w1"]
    assert {"flushed": {"flush_id": "3"}} in messages
    assert messages[-1] == {"finished": {}}
    assert socket.close_code == 1000


async def test_a_broken_session_is_resumed() -> None:
    async with socket_url(1.0, 2.5, 9.0) as url:
        async with client(url) as socket:
            await socket.send(json.dumps(OPEN))
            opened = json.loads(await socket.recv())["opened"]
            await socket.send(bytes(4 * RATE * 2))
            heard: list[dict[str, Any]] = []
            while not words_of(heard):
                heard.append(json.loads(await socket.recv()))
            socket.transport.abort()
        async with client(url) as socket:
            have = len(words_of(heard))
            resume = {"token": opened["resume_token"], "num_words": have}
            await socket.send(json.dumps({"resume": resume}))
            again = json.loads(await socket.recv())["opened"]
            assert again["session_id"] == opened["session_id"]
            await socket.send(bytes(11 * RATE * 2 - int(again["received_bytes"])))
            await socket.send(json.dumps(FINISH))
            heard += await rest(socket)
    assert words_of(heard) == [" w0", " w1", " w2"]


@pytest.mark.parametrize(
    ("first", "status", "reason", "close_code"),
    [
        ("not json", "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        ('{"open": {"encoding": "ENCODING_MP9"}}', "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        ('{"shut": {}}', "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        ("{}", "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        ("[" * 100_000, "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        (TOO_LONG, "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        (b"audio", "INVALID_ARGUMENT", "INVALID_REQUEST", 1008),
        ('{"open": {"model": "none"}}', "NOT_FOUND", "NOT_FOUND", 1008),
        ('{"resume": {"token": "x"}}', "NOT_FOUND", "NOT_FOUND", 1008),
    ],
)
async def test_what_cannot_be_served_is_refused_with_a_reason(
    first: str | bytes, status: str, reason: str, close_code: int
) -> None:
    async with socket_url() as url, client(url) as socket:
        await socket.send(first)
        [refusal] = await rest(socket)
    assert refusal["error"]["status"] == status
    assert refusal["error"]["reason"] == reason
    assert socket.close_code == close_code


async def test_a_client_that_never_says_anything_is_told_so() -> None:
    async with socket_url(idle_s=0.2) as url, client(url) as socket:
        [refusal] = await rest(socket)
    assert refusal["error"]["reason"] == "INVALID_REQUEST"
    assert socket.close_code == 1008


async def test_a_client_without_a_key_is_refused_at_the_handshake() -> None:
    async with socket_url(keys={"alice": "a"}) as url:
        with pytest.raises(InvalidStatus) as refused:
            await client(url)
        assert refused.value.response.status_code == 401
        async with client(url, additional_headers={"Authorization": "Bearer a"}) as socket:
            await socket.send(json.dumps(OPEN))
            assert "opened" in json.loads(await socket.recv())


async def test_a_stopping_gateway_brings_the_last_words_home_and_says_why_it_hangs_up() -> None:
    """G1."""
    said = words_at(0.5)
    async with (
        running(FakeVad(spans_of(said)), FakeAsr(said)) as mesh,
        served(mesh.gateway) as port,
        client(f"ws://127.0.0.1:{port}/v1/converse") as socket,
    ):
        await socket.send(json.dumps(OPEN))
        await socket.recv()
        await socket.send(bytes(2 * RATE * 2))
        await until(lambda: mesh.vad.heard_sample == 2 * RATE)
        await mesh.gateway.drain(1.0)
        messages = await rest(socket)
    assert words_of(messages) == [" w0"]
    assert messages[-1] == {"finished": {}}
    assert socket.close_code == 1012
