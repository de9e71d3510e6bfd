import pytest
from starlette.datastructures import Headers, QueryParams

from services.gateway.auth import Keys, presented


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


@pytest.mark.parametrize(
    ("keys", "offers", "admitted"),
    [
        ([], [], True),
        ([], ["anything"], True),
        (["a", "b"], ["b"], True),
        (["a", "b"], ["c", "a"], True),
        (["a"], [], False),
        (["a"], ["", "A", "aa"], False),
        (["schlüssel"], ["schlüssel"], True),
    ],
)
def test_a_known_key_is_enough(keys: list[str], offers: list[str], admitted: bool) -> None:
    assert Keys(keys).admit(offers) is admitted
