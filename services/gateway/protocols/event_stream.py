"""Server-sent events (WHATWG HTML, section 9.2): an answer that comes as things happen."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeAlias

import structlog
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from services.common.errors import ClientLeftError, MeshError
from services.gateway.protocols.http_errors import problem_of
from services.gateway.protocols.recordings import left
from services.gateway.tasks import first_error

log = structlog.get_logger(__name__)

_PING_S = 15.0
"""Between two comments that keep proxies and clients patient."""
_SEND_S = 30.0
"""A client that takes nothing for so long is gone."""

Tell: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[None]]


class EventStream(Response):
    """Tells events as they come about.

    What goes wrong before the first of them is an ordinary answer; amid them, it is an event too.
    """

    media_type = "text/event-stream"

    def __init__(self, work: Callable[[Tell], Awaitable[None]], resources: AsyncExitStack) -> None:
        """Prepare to answer.

        Args:
            work: Is given a way to tell an event, and returns after the last one.
            resources: What it uses; closed at the end.

        """
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store"})
        self._work = work
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        writing = asyncio.Lock()
        begun = False

        async def write(body: bytes, *, more_body: bool) -> None:
            nonlocal begun
            async with writing:
                if not begun:
                    begun = True
                    start = {"type": "http.response.start", "status": self.status_code}
                    await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": body, "more_body": more_body})

        async def say(text: str) -> None:
            try:
                async with asyncio.timeout(_SEND_S):
                    await write(f"{text}\n\n".encode(), more_body=True)
            except (OSError, TimeoutError):
                raise ClientLeftError from None

        async def tell(event: Mapping[str, Any]) -> None:
            await say(f"data: {json.dumps(event, ensure_ascii=False)}")

        async def ping() -> None:
            while True:
                await asyncio.sleep(_PING_S)
                await say(": ping")

        async def refuse(error: Exception) -> None:
            problem = problem_of(error)
            if begun:
                await tell(problem.body())
                return
            headers = {**problem.headers, **self.headers}
            del headers["content-type"]
            await JSONResponse(problem.body(), problem.status, headers)(scope, receive, send)

        async def serve() -> None:
            try:
                with first_error():
                    async with asyncio.TaskGroup() as tasks:
                        pinging = tasks.create_task(ping(), name="events.ping")
                        await self._work(tell)
                        pinging.cancel()
            except MeshError as error:
                await refuse(error)
            except ClientLeftError:
                raise
            except Exception as error:  # the boundary: a bug must not go unanswered
                log.exception("unexpected error")
                await refuse(error)
            if begun:
                await say("data: [DONE]")
                await write(b"", more_body=False)

        async with self._resources:
            with suppress(ClientLeftError), first_error():
                async with asyncio.TaskGroup() as tasks:
                    leaving = tasks.create_task(left(receive), name="events.leave")
                    await serve()
                    leaving.cancel()
