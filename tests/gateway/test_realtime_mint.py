"""Temporary keys for ``/v1/realtime``."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from services.common.errors import OverloadedError, UnauthenticatedError
from services.gateway import auth
from services.gateway.auth import Keys
from tests.gateway.fakes import write_keys
from tests.gateway.realtime import connected, mesh_at_port
from tests.settings.serving import until

SECRETS = "/v1/realtime/client_secrets"
SESSIONS = "/v1/realtime/transcription_sessions"
ALICE = {"Authorization": "Bearer a"}


async def post(
    port: int, path: str, body: Any = None, headers: dict[str, str] = ALICE
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        content = body if isinstance(body, bytes) else None
        json = None if isinstance(body, bytes) else body
        url = f"http://127.0.0.1:{port}{path}"
        return await client.post(url, json=json, content=content, headers=headers)


async def test_a_client_secret_opens_a_connection_and_makes_no_other() -> None:
    session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    async with mesh_at_port(keys={"alice": "a"}) as (_, port):
        answer = await post(port, SECRETS, {"session": session})
        assert answer.status_code == 200
        minted = answer.json()
        assert minted["value"].startswith("ek_")
        assert minted["session"]["audio"]["input"]["turn_detection"] is None
        assert isinstance(minted["expires_at"], int)
        protocols = ("realtime", f"openai-insecure-api-key.{minted['value']}")
        async with connected(port, "", *protocols) as client:
            assert client.socket.subprotocol == "realtime"
            created = await client.next()
            assert created["type"] == "session.created"
            assert created["session"]["audio"]["input"]["turn_detection"] is None
        refused = await post(port, SECRETS, headers={"Authorization": f"Bearer {minted['value']}"})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        with pytest.raises(InvalidStatus):
            async with connected(port, "", "realtime", "openai-insecure-api-key.ek_other"):
                pass


async def test_a_minted_session_suits_the_clients_of_both_vendors() -> None:
    async with mesh_at_port(keys={"alice": "a"}) as (_, port):
        minted = (await post(port, SESSIONS, {})).json()
        token = minted["client_secret"]["value"]
        assert minted["input_audio_params"] == {"sample_rate_hz": 16000, "num_channels": 1}
        assert minted["input_audio_format"] == "pcm16"
        async with connected(port, "", "realtime", f"realtime-token.{token}") as client:
            assert (await client.next())["type"] == "conversation.created"
            updated = await client.configure("transcription_session.update", minted)
            assert updated["type"] == "transcription_session.updated"
            assert token not in str(updated)


async def test_an_open_gateway_mints_too() -> None:
    async with mesh_at_port() as (_, port):
        assert (await post(port, SESSIONS, {}, {})).json()["client_secret"]["value"]


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (SECRETS, b"{", "invalid_json"),
        (SECRETS, b"[]", "invalid_json"),
        (SECRETS, b"x" * 70_000, None),
        (SECRETS, {"expires_after": {"anchor": "created_at", "seconds": 5}}, "invalid_value"),
        (SECRETS, {"expires_after": {"seconds": 7201}}, "invalid_value"),
        (SECRETS, {"session": {"audio": {"input": {"format": "mp3"}}}}, "invalid_value"),
        (SESSIONS, {"input_audio_format": "mp3"}, "invalid_value"),
    ],
)
async def test_what_cannot_be_minted_is_refused_in_the_words_of_both(
    path: str, body: object, code: str | None
) -> None:
    async with mesh_at_port() as (_, port):
        answer = await post(port, path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["detail"] == answer.json()["error"]["message"]
    assert answer.headers["x-request-id"]


async def test_a_temporary_key_is_its_owners_until_it_expires_or_the_owner_is_gone(
    tmp_path: Path,
) -> None:
    path = write_keys(tmp_path / "keys", {"alice": "a", "bob": "b"})
    keys = Keys(path)
    watch = asyncio.create_task(keys.watch())
    short, long = keys.lend(["a"], 0.2), keys.lend(["a"], 600)
    assert keys.caller([short]) == keys.caller(["", long]) == "alice"
    with pytest.raises(UnauthenticatedError):
        keys.lend([long], 600)
    with pytest.raises(UnauthenticatedError):
        keys.lend(["c"], 600)
    await until(lambda: keys.caller([short]) is None)
    assert keys.caller([long]) == "alice"
    write_keys(path, {"alice": "another", "bob": "b"})
    await until(lambda: keys.caller([long]) is None)
    watch.cancel()


async def test_there_are_only_so_many_temporary_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_MAX_LENT", 2)
    keys = Keys(write_keys(tmp_path / "keys", {"alice": "a"}))
    assert keys.lend(["a"], 0.1) != keys.lend(["a"], 600)
    with pytest.raises(OverloadedError):
        keys.lend(["a"], 600)
    await asyncio.sleep(0.1)  # for the first to expire
    assert keys.caller([keys.lend(["a"], 600)]) == "alice"
