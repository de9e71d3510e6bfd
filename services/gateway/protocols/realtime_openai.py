"""OpenAI's transcription over ``/v1/realtime``, as it is today and as it was in the beta."""

import time
import uuid
from collections.abc import Iterable, Mapping

from services.common.errors import InvalidRequestError, NotFoundError
from services.gateway.protocols.http_errors import RefusedError, problem_of
from services.gateway.protocols.realtime_link import Event, Link
from services.gateway.protocols.realtime_view import SHORTEST_COMMIT_SAMPLES, Items, Message
from services.gateway.protocols.realtime_wish import Body, Wish, updated

_UPDATED: Mapping[str, str] = {
    "session.update": "session.updated",
    "transcription_session.update": "transcription_session.updated",
}


def now_s() -> int:
    """Seconds since 1970, for clients that are told a date."""
    return int(time.time())


def session_id() -> str:
    """An id of a session."""
    return f"sess_{uuid.uuid4().hex[:24]}"


def signed(message: Message) -> Message:
    """A message with an id of its own."""
    return {"type": message["type"], "event_id": f"event_{uuid.uuid4().hex[:24]}", **message}


def told(error: Exception) -> Message:
    """An error, as clients are told of it."""
    problem = problem_of(error)
    said = isinstance(error, InvalidRequestError | NotFoundError)
    return {
        "type": problem.kind,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param if said else None,
    }


class Openai:
    """The dialect of a client that has configured a transcription, or anything else."""

    def __init__(self, wish: Wish, *, beta: bool, max_session_s: int) -> None:
        """Create it for a client that has said nothing yet.

        Args:
            wish: What its address says.
            beta: Whether it speaks as in the beta.
            max_session_s: How long it may speak.

        """
        self.view = Items(beta=beta)
        self._beta = beta
        self._session_id = session_id()
        self._created_s = now_s()
        self._expires_s = self._created_s + max_session_s
        self._wish = wish
        self._adopt(wish)

    def greeting(self) -> Message:
        """The session that is there; not only for OpenAI's clients, which is not known yet."""
        if self._beta:
            return {"type": "transcription_session.created", "session": self._shown(flat=True)}
        return {
            "type": "session.created",
            "id": self._session_id,
            "created": self._created_s,
            "session": self._shown(flat=False),
        }

    def signed(self, message: Message) -> Message:
        """With an id."""
        return signed(message)

    async def handle(self, link: Link, event: Event) -> None:
        """Do what the client asks for.

        Raises:
            InvalidRequestError: It cannot be done; the connection goes on.
            NotFoundError: Likewise.

        """
        match event["type"]:
            case "session.update" | "transcription_session.update":
                await self._update(link, event)
            case "input_audio_buffer.append":
                await link.feed(event["audio"])
            case "input_audio_buffer.commit":
                await self._commit(link)
            case "input_audio_buffer.clear":
                await self._clear(link)
            case kind:
                raise RefusedError(
                    f"{kind!r} is no event of a transcription", param=None, code="invalid_event"
                )

    async def end(self, link: Link) -> None:
        """Take what the client has not committed for committed."""
        if self.view.turns is None and self._buffered(link) >= SHORTEST_COMMIT_SAMPLES:
            await self._commit(link)
        await link.finish()

    def error(self, error: Exception, event_id: str | None) -> Message:
        """The error event."""
        return {"type": "error", "error": {**told(error), "event_id": event_id}}

    def failure(self, error: Exception) -> Iterable[Message]:
        """The items that are lost, and why."""
        yield from self.view.failed(told(error))
        yield self.error(error, None)

    async def _update(self, link: Link, event: Event) -> None:
        wish = updated(self._wish, event.get("session"))
        await link.open(link.checked(wish.config(link.base_config)), wish.audio)
        self._adopt(wish)
        flat = self._beta or event["type"] == "transcription_session.update"
        reply = {"type": _UPDATED[event["type"]], "session": self._shown(flat=flat)}
        await link.say(lambda: [reply])

    async def _commit(self, link: Link) -> None:
        if (buffered := self._buffered(link)) < SHORTEST_COMMIT_SAMPLES:
            raise RefusedError(
                f"there is too little audio to commit: {buffered / 16:.0f} ms of at least 100",
                param=None,
                code="input_audio_buffer_commit_empty",
            )
        # Only then is it known which turns have ended before.
        if await link.flush():
            await link.say(lambda: self.view.commit(link.position))

    async def _clear(self, link: Link) -> None:
        await link.say(lambda: self.view.discard(link.position))
        if await link.flush():
            await link.say(self.view.go_on)

    def _buffered(self, link: Link) -> int:
        return link.position - self.view.boundary_sample

    def _adopt(self, wish: Wish) -> None:
        self._wish = wish
        self.view.turns = wish.turns
        self.view.with_logprobs = wish.with_logprobs
        self.view.with_speakers = wish.diarized

    def _shown(self, *, flat: bool) -> Body:
        shown = self._wish.shown_flat() if flat else self._wish.shown()
        return {**shown, "id": self._session_id, "expires_at": self._expires_s}
