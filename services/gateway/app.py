"""The HTTP and WebSocket side of the gateway: every protocol, health and metrics, on one port."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.gateway.auth import Guard
from services.gateway.documents import NAMES, document_json
from services.gateway.gateway import Gateway
from services.gateway.protocols import converse_socket, deepgram, openai, realtime, wlk
from services.gateway.refusals import everywhere

_PROTOCOLS = (converse_socket, deepgram, openai, realtime, wlk)
"""Each has ``routes``, the paths that it serves."""


def create_app(gateway: Gateway) -> Starlette:
    """The application."""

    async def health(_request: Request) -> JSONResponse:
        models = gateway.models()
        backend = models[0].engine if models else ""
        ready = await gateway.healthy()
        return JSONResponse({"status": "ok", "backend": backend, "ready": ready})

    async def ready(_request: Request) -> JSONResponse:
        stages = await gateway.ready()
        fit = all(stages.values()) and not gateway.draining.is_set()
        return JSONResponse({"ready": fit, "stages": stages}, 200 if fit else 503)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        """What matches no route, in the forms of all API families at once."""
        assert isinstance(error, HTTPException)
        code = error.detail.lower().replace(" ", "_")
        refusal = everywhere(error.status_code, error.detail, code=code, deepgram_code=error.detail)
        refusal.headers.update(error.headers or {})
        return refusal

    return Starlette(
        routes=[
            *(route for protocol in _PROTOCOLS for route in protocol.routes(gateway)),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            *(Route(f"/{name}.json", _document(name)) for name in NAMES),
        ],
        middleware=[
            Middleware(Guard, keys=gateway.keys, origins=gateway.settings.origins),
        ],
        exception_handlers={HTTPException: refuse},
    )


def _document(name: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint. It is read at once: nobody waits for that later."""
    body = document_json(name)

    async def document(_request: Request) -> Response:
        return Response(body, media_type="application/json")

    return document
