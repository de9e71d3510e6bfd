"""``/v1/realtime``: OpenAI's transcription, and the two dialects that others speak there.

Which one it is shows at the handshake, or in the first event.
"""

from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from services.common.errors import ClientLeftError, MeshError
from services.gateway.gateway import Gateway
from services.gateway.protocols import realtime_mint
from services.gateway.protocols.http_errors import problem_of
from services.gateway.protocols.realtime_link import Event, Link
from services.gateway.protocols.realtime_openai import Openai
from services.gateway.protocols.realtime_riva import Riva, is_session
from services.gateway.protocols.realtime_vllm import Vllm
from services.gateway.protocols.realtime_wish import first_wish

_BETA_PROTOCOL = "openai-beta.realtime-v1"
_BETA_HEADER = "realtime=v1"
_RIVA_PROTOCOL = "realtime-token."


def routes(gateway: Gateway) -> list[BaseRoute]:
    """The paths that are served."""
    mint = realtime_mint.Mint(gateway.keys)

    async def realtime(websocket: WebSocket) -> None:
        await serve(websocket, gateway, mint)

    return [WebSocketRoute("/v1/realtime", realtime), *realtime_mint.routes(mint)]


async def serve(websocket: WebSocket, gateway: Gateway, mint: realtime_mint.Mint) -> None:
    """Serve one connection from its handshake to its end."""
    offered = websocket.scope.get("subprotocols", [])
    beta = _BETA_PROTOCOL in offered or _BETA_HEADER in websocket.headers.get("openai-beta", "")
    link = Link(websocket, gateway)
    query = websocket.query_params
    try:
        wish = mint.find(websocket) or first_wish(
            model=query.get("model", ""), audio_format=query.get("input_audio_format", "")
        )
        openai = Openai(wish, beta=beta, max_session_s=gateway.settings.max_session_s)
        link.dialect = openai if beta else _Undecided(openai)
        greeting = openai.greeting()
        if any(name.startswith(_RIVA_PROTOCOL) for name in offered):
            link.dialect = Riva()
            greeting = {"type": "conversation.created"}
        await link.open(link.checked(wish.config(link.base_config)), wish.audio)
    except MeshError as error:
        problem = problem_of(error)
        await websocket.send_denial_response(
            JSONResponse(problem.body(), problem.status, problem.headers)
        )
        return
    try:
        with suppress(ClientLeftError):
            await link.serve(link.dialect.signed(greeting))
    finally:
        await link.aclose()


class _Undecided:
    """Speaks OpenAI's dialect, until the first event shows which one it is to be."""

    def __init__(self, openai: Openai) -> None:
        self._openai = openai
        self.view = openai.view
        self.signed = openai.signed
        self.error = openai.error
        self.failure = openai.failure
        self.end = openai.end

    async def handle(self, link: Link, event: Event) -> None:
        """Go on in the dialect of the event."""
        link.dialect = self._dialect_of(event)
        await link.dialect.handle(link, event)

    def _dialect_of(self, event: Event) -> "Openai | Riva | Vllm":
        session = event.get("session")
        if event["type"] == "session.update" and session is None and event.get("model"):
            return Vllm()
        if event["type"] == "transcription_session.update" and is_session(session):
            return Riva()
        return self._openai
