import asyncio
from pathlib import Path

import pytest
from starlette.datastructures import Headers, QueryParams

from services.gateway.auth import Keys, KeysFileError, presented
from tests.gateway.fakes import write_keys
from tests.settings.serving import until


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"authorization": "Token K"}, ""),
        ({"authorization": "token K"}, ""),
        ({"authorization": "Bearer K"}, ""),
        ({"authorization": "bearer K"}, ""),
        ({"authorization": "K"}, ""),
        ({"sec-websocket-protocol": "token, K"}, ""),
        ({"sec-websocket-protocol": "token,K,x-deepgram-session-id,uuid"}, ""),
        ({"sec-websocket-protocol": "bearer, K"}, ""),
        (
            {
                "sec-websocket-protocol": "realtime, openai-insecure-api-key.K, "
                "openai-beta.realtime-v1"
            },
            "",
        ),
        ({"sec-websocket-protocol": "realtime, realtime-token.K"}, ""),
        ({"x-api-key": "K"}, ""),
        ({"api-key": "K"}, ""),
        ({}, "api_key=K"),
        ({}, "language=en&token=K"),
    ],
)
def test_every_place_where_clients_put_a_key_is_looked_at(
    headers: dict[str, str], query: str
) -> None:
    assert "K" in list(presented(Headers(headers), QueryParams(query)))


def test_without_a_file_everybody_is_admitted() -> None:
    assert Keys(None).caller([]) == ""
    assert Keys(None).caller(["anything"]) == ""


@pytest.mark.parametrize(
    ("offers", "caller"),
    [
        (["b"], "bob"),
        (["c", "a"], "alice"),
        ([], None),
        (["", "A", "aa"], None),
        (["schlüssel"], "jürgen"),
    ],
)
def test_a_known_key_is_enough_and_tells_its_name(
    tmp_path: Path, offers: list[str], caller: str | None
) -> None:
    path = write_keys(tmp_path / "keys", {"alice": "a", "bob": "b", "jürgen": "schlüssel"})
    assert Keys(path).caller(offers) == caller


def test_a_file_without_a_key_admits_nobody(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# nobody yet\n\n")
    assert Keys(path).caller([]) is None
    assert Keys(path).caller([""]) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("alice secret", "line 1"),
        (f"alice {'0' * 64}\nalice {'1' * 64}", "line 2 .* alice again"),
        (f"two names {'0' * 64}", "line 1"),
        (f"alice {'0' * 63}", "line 1"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(KeysFileError, match=reason) as refused:
        Keys(path)
    assert "secret" not in str(refused.value)
    with pytest.raises(KeysFileError, match="cannot be read"):
        Keys(tmp_path / "nowhere")


async def test_a_key_that_is_taken_out_of_the_file_is_refused_from_then_on(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys", {"alice": "a", "bob": "b"})
    keys = Keys(path)
    watch = asyncio.create_task(keys.watch())
    path.write_text("not a line of keys")
    await asyncio.sleep(1.5)  # it has been looked at
    assert keys.caller(["a"]) == "alice"
    path.unlink()
    await asyncio.sleep(1.5)
    assert keys.caller(["a"]) == "alice"
    write_keys(path, {"bob": "b", "carol": "c"})
    await until(lambda: keys.caller(["a"]) is None)
    assert keys.caller(["b"]) == "bob"
    assert keys.caller(["c"]) == "carol"
    watch.cancel()
