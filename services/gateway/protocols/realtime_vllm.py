"""vLLM's way to transcribe over ``/v1/realtime``: one utterance of 16 kHz PCM after the other."""

from collections.abc import Iterable
from dataclasses import replace

from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import text_of
from services.gateway.audio_input import RawFormat
from services.gateway.protocols.http_errors import RefusedError, problem_of
from services.gateway.protocols.openai_form import model_name
from services.gateway.protocols.realtime_link import Event, Link
from services.gateway.protocols.realtime_view import Message
from services.gateway.session_config import SessionConfig
from services.gateway.transcript import Transcript

_AUDIO = RawFormat("linear16", SAMPLE_RATE_HZ)


class Utterance:
    """What the client has been told of the utterance that is spoken."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        self._num_words = 0
        self._text = ""

    def attach(self, transcript: Transcript, base_sample: int) -> None:
        """Go on with another utterance."""
        self._transcript = transcript
        self._num_words = 0
        self._text = ""

    def news(self) -> Iterable[Message]:
        """The words that have come."""
        words = self._transcript.words[self._num_words :]
        self._num_words += len(words)
        delta = text_of(words) if self._text else text_of(words).lstrip()
        if delta:
            self._text += delta
            yield {"type": "transcription.delta", "delta": delta}

    def detach(self) -> Iterable[Message]:
        """The last words."""
        return self.news()

    def done(self) -> Message:
        """The whole text."""
        num_tokens = sum(len(word.token_ids) for word in self._transcript.words)
        usage = {"prompt_tokens": 0, "completion_tokens": num_tokens, "total_tokens": num_tokens}
        return {"type": "transcription.done", "text": self._text, "usage": usage}


class Vllm:
    """The dialect of a client whose first update names a model, and no session."""

    def __init__(self) -> None:
        self.view = Utterance()
        self._known = False
        """Whether the client has named a model that there is."""
        self._config = SessionConfig("", "")
        self._begun = False
        """Whether the client waits for the end of an utterance."""

    def signed(self, message: Message) -> Message:
        """As it is."""
        return message

    async def handle(self, link: Link, event: Event) -> None:
        """Do what the client asks for.

        Raises:
            InvalidRequestError: It cannot be done; the connection goes on.
            NotFoundError: Likewise.

        """
        match event["type"]:
            case "session.update":
                model = model_name(str(event.get("model") or ""))
                self._config = link.checked(replace(link.base_config, model=model))
                self._known = True
                await link.open(self._config, _AUDIO)
            case "input_audio_buffer.append":
                await self._begin(link)
                await link.feed(event["audio"])
            case "input_audio_buffer.commit":
                await self._begin(link)
                if event.get("final"):
                    await self.end(link)
            case kind:
                raise RefusedError(f"unknown event {kind!r}", param=None, code="unknown_event")

    async def end(self, link: Link) -> None:
        """Take the utterance for complete."""
        await link.finish()
        if self._begun:
            self._begun = False
            await link.say(lambda: [self.view.done()])

    def error(self, error: Exception, event_id: str | None) -> Message:
        """The error, whose message is a string here."""
        problem = problem_of(error)
        return {"type": "error", "error": problem.message, "code": problem.code}

    def failure(self, error: Exception) -> Iterable[Message]:
        """Why it is over."""
        yield self.error(error, None)

    async def _begin(self, link: Link) -> None:
        if not self._known:
            message = "there is no model yet: send session.update"
            raise RefusedError(message, param=None, code="model_not_validated")
        if not link.listening:
            await link.open(self._config, _AUDIO)
        self._begun = True
