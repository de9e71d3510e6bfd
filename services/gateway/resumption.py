"""Sessions that outlive their connections, each behind a token that only its owner can use."""

import asyncio
import hashlib
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass

from services.common.errors import NotFoundError
from services.gateway.live_session import LiveSession

_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    live: LiveSession
    owner: str
    task: asyncio.Task[None]


class Resumption:
    """Runs the sessions that may be resumed. ``run`` is their task group, and ends with them."""

    def __init__(self, patience_s: float, max_ended: int, closing: asyncio.Event) -> None:
        """Create it; nothing is kept before ``run``.

        Args:
            patience_s: How long a session is kept that has no connection, in seconds.
            max_ended: Sessions kept although they are over, because their clients may not know.
            closing: Set when the process is to end: what was said so far is all there is.

        """
        self.patience_s = patience_s
        self._max_ended = max_ended
        self._kept: dict[bytes, _Kept] = {}
        self._tasks = asyncio.TaskGroup()
        self._closing = closing

    async def run(self) -> None:
        """Keep sessions until cancelled."""
        async with self._tasks:
            await asyncio.Event().wait()

    def keep(self, live: LiveSession, owner: str, resources: AsyncExitStack) -> str:
        """Run a session, whatever becomes of its connections.

        Args:
            live: The session.
            owner: Who alone may resume it.
            resources: What it holds; closed when it is over.

        Returns:
            The token that resumes it: 256 random bits, of which only a hash is kept.

        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        key = _key(token)
        task = self._tasks.create_task(self._run(key, live, resources), name="resumption.keep")
        self._kept[key] = _Kept(live, owner, task)
        return token

    def find(self, token: str, owner: str) -> LiveSession:
        """The session behind a token.

        Raises:
            NotFoundError: There is none, or none any more, or it is not the caller's.

        """
        kept = self._kept.get(_key(token))
        if kept is None or kept.owner != owner:
            raise NotFoundError("no session waits to be resumed with this token")
        return kept.live

    async def _run(self, key: bytes, live: LiveSession, resources: AsyncExitStack) -> None:
        try:
            async with resources, asyncio.TaskGroup() as tasks:
                run = tasks.create_task(live.run(self._closing), name="resumption.session")
                left = tasks.create_task(live.abandoned(self.patience_s), name="resumption.watch")
                await asyncio.wait((run, left), return_when=asyncio.FIRST_COMPLETED)
                run.cancel()
                left.cancel()
            self._forget_oldest()
            await live.abandoned(self.patience_s)
        finally:
            self._kept.pop(key, None)

    def _forget_oldest(self) -> None:
        ended = [kept for kept in self._kept.values() if kept.live.over.is_set()]
        for kept in ended[: -self._max_ended]:
            kept.task.cancel()


def _key(token: str) -> bytes:
    """Where a token's session is found: looking for a hash tells nothing of near misses."""
    return hashlib.sha256(token.encode()).digest()
