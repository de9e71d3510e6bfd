"""``POST /v1/auth/grant``: tokens that clients of Deepgram give to browsers."""

from typing import Any

import httpx
import pytest

from tests.gateway.listening import listener, mesh_at_port

ALICE = {"Authorization": "Token a"}


async def granted(
    port: int, body: Any = None, headers: dict[str, str] = ALICE, **sent: Any
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/v1/auth/grant"
        return await client.post(url, json=body, headers=headers, **sent)


@pytest.mark.parametrize(
    ("body", "expires_in"),
    [(None, 30.0), ({}, 30.0), ({"ttl_seconds": None}, 30.0), ({"ttl_seconds": 60}, 60.0)],
)
async def test_a_token_opens_a_stream_and_makes_no_other(body: Any, expires_in: float) -> None:
    async with mesh_at_port(0.5, keys={"alice": "a"}) as (_, port):
        answer = await granted(port, body)
        assert answer.status_code == 200
        token = answer.json()["access_token"]
        assert answer.json() == {"access_token": token, "expires_in": expires_in}
        bearer = {"Authorization": f"Bearer {token}"}
        async with listener(port, additional_headers=bearer) as client:
            await client.say(1)
            await client.finish()
        refused = await granted(port, headers=bearer)
    assert client.text == "w0"
    assert (refused.status_code, refused.json()["err_code"]) == (401, "INVALID_AUTH")
    assert refused.headers["dg-request-id"] == refused.json()["request_id"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "INVALID_JSON"),
        (b"[]", "INVALID_JSON"),
        (b"x" * 70_000, "Bad Request"),
        (b'{"ttl_seconds": 0.5}', "Bad Request"),
        (b'{"ttl_seconds": 3601}', "Bad Request"),
        (b'{"ttl_seconds": true}', "Bad Request"),
        (b'{"ttl_seconds": "60"}', "Bad Request"),
    ],
)
async def test_what_cannot_be_granted_is_refused_in_deepgrams_words(
    content: bytes, code: str
) -> None:
    async with mesh_at_port() as (_, port):
        answer = await granted(port, content=content)
    assert (answer.status_code, answer.json()["err_code"]) == (400, code)
    assert answer.json()["err_msg"] == answer.headers["dg-error"]
