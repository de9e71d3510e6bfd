"""NVIDIA's way to transcribe over ``/v1/realtime``, for Riva's and NIM's clients.

The audio is one stream: commits cut nothing. Each utterance is told when it is over, and at the end
everything once more, because clients keep what they are told last.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.common.timeline import SAMPLE_RATE_HZ
from services.common.words import Word, text_of
from services.gateway.audio_input import ContainerFormat, RawFormat
from services.gateway.languages import language_code
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.protocols.openai_form import model_name
from services.gateway.protocols.realtime_link import Event, Link
from services.gateway.protocols.realtime_openai import signed, told
from services.gateway.protocols.realtime_view import Message
from services.gateway.protocols.realtime_wish import Body, Fields, refused
from services.gateway.protocols.riva_request import diarization
from services.gateway.session_config import SessionConfig
from services.gateway.sniff import is_container
from services.gateway.transcript import Transcript

_TRANSCRIPTION = "conversation.item.input_audio_transcription"
_MAX_COUNT = 2**31 - 1


def default_session() -> Body:
    """The parts of a session that only these clients know."""
    return {
        "input_audio_params": {"sample_rate_hz": SAMPLE_RATE_HZ, "num_channels": 1},
        "recognition_config": {
            "max_alternatives": 1,
            "enable_automatic_punctuation": True,
            "enable_word_time_offsets": True,
            "enable_profanity_filter": False,
            "enable_verbatim_transcripts": True,
            "custom_configuration": "",
        },
    }


def is_session(session: object) -> bool:
    """Whether an update is from one of these clients: they send back what they were given."""
    return isinstance(session, Mapping) and not default_session().keys().isdisjoint(session)


class Stream:
    """What the client has been told of its stream."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        self._item_id = "item_0"
        self._num_words = 0
        self._num_completed = 0
        """Words that belong to utterances that are over."""
        self._span = 0
        """Index of the first speech that is not over."""

    def attach(self, transcript: Transcript, base_sample: int) -> None:
        """Go on with another transcript."""
        self._transcript = transcript
        self._num_words = self._num_completed = self._span = 0

    def news(self) -> Iterable[Message]:
        """The words that have come, and the utterances that are over."""
        transcript = self._transcript
        words = transcript.words[self._num_words :]
        if words:
            self._num_words += len(words)
            yield {"type": f"{_TRANSCRIPTION}.delta", **self._item(), "delta": text_of(words)}
        over = False
        while self._span < len(transcript.speech):
            end_sample = transcript.speech[self._span].end_sample
            if end_sample is None or end_sample > transcript.decided_sample:
                break
            self._span += 1
            over = True
        if over:
            yield from self.cut()

    def cut(self) -> Iterable[Message]:
        """The utterance is over, if there is one."""
        words = self._transcript.words[self._num_completed : self._num_words]
        if words:
            self._num_completed = self._num_words
            yield self._completed(words, is_last=False)

    def detach(self) -> Iterable[Message]:
        """The last words."""
        return self.news()

    def last(self) -> Message:
        """Everything."""
        return self._completed(self._transcript.words, is_last=True)

    def _completed(self, words: Sequence[Word], *, is_last: bool) -> Message:
        return {
            "type": f"{_TRANSCRIPTION}.completed",
            **self._item(),
            "transcript": text_of(words).strip(),
            "is_last_result": is_last,
            "words_info": {"words": [_told_word(word) for word in words]},
        }

    def _item(self) -> Message:
        return {"item_id": self._item_id, "content_index": 0}


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the client has asked for."""

    config: SessionConfig
    audio: RawFormat
    may_be_container: bool
    session: Body = field(default_factory=dict)


class Riva:
    """The dialect of a client that sends back the session that it was given by the mint."""

    def __init__(self) -> None:
        self.view = Stream()
        self._wish: _Wish | None = None
        self._heard = False

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
            case "transcription_session.update":
                await self._update(link, event.get("session"))
            case "input_audio_buffer.append":
                await self._append(link, event)
            case "input_audio_buffer.commit":
                return
            case "input_audio_buffer.done":
                link.over = True
            case kind:
                raise RefusedError(f"unknown event {kind!r}", param=None, code="invalid_event")

    async def end(self, link: Link) -> None:
        """Tell everything."""
        await link.finish()
        await link.say(lambda: [self.view.last()])

    def error(self, error: Exception, event_id: str | None) -> Message:
        """The error event."""
        return {"type": "error", "error": {**told(error), "event_id": event_id}}

    def failure(self, error: Exception) -> Iterable[Message]:
        """Why it is over."""
        yield self.error(error, None)

    async def _update(self, link: Link, session: object) -> None:
        if self._heard:
            raise RefusedError(
                "a session can only be updated before its audio", param=None, code="invalid_event"
            )
        wish = _wish(Fields(session, "session"), link.base_config)
        wish = replace(wish, config=link.checked(wish.config))
        await link.open(wish.config, wish.audio)
        self._wish = wish
        await link.say(lambda: [{"type": "transcription_session.updated", "session": wish.session}])

    async def _append(self, link: Link, event: Event) -> None:
        wish = self._wish
        if wish is None:
            raise RefusedError(
                "send transcription_session.update first", param=None, code="invalid_event"
            )
        if not self._heard and wish.may_be_container and is_container(event["audio"]):
            await link.open(wish.config, ContainerFormat())
        self._heard = True
        await link.feed(event["audio"])
        options = event.get("runtime_config")
        forced = isinstance(options, dict) and str(options.get("force_eou")).lower() == "true"
        if forced and await link.flush():
            await link.say(lambda: [*self.view.news(), *self.view.cut()])


def _wish(session: Fields, base: SessionConfig) -> _Wish:
    transcription = session.fields("input_audio_transcription")
    language = language_code(transcription.text("language"))
    if language is None:
        raise refused(transcription.path("language"), "names no language that is known")
    speakers = session.fields("speaker_diarization")
    boosts = session.fields("word_boosting").objects("word_boosting_list")
    config = replace(
        base,
        language_code=language,
        model=model_name(transcription.text("model")),
        prompt=transcription.text("prompt"),
        hotwords=tuple(phrase for boost in boosts for phrase in boost.texts("phrases")),
        diarization=diarization(
            int(speakers.number("max_speaker_count", 0, _MAX_COUNT)),
            wanted=speakers.flag("enable_speaker_diarization"),
        ),
    )
    params = session.fields("input_audio_params")
    rate_hz = params.number("sample_rate_hz", SAMPLE_RATE_HZ, 192_000)
    channels = params.number("num_channels", 1, 8)
    audio = RawFormat("linear16", int(rate_hz), int(channels))
    may_be_container = session.text("input_audio_format", "none") == "none"
    return _Wish(config, audio, may_be_container, session.shown())


def _told_word(word: Word) -> dict[str, Any]:
    return {
        "word": word.text.strip(),
        "start_time": _ms(word.first_sample),
        "end_time": _ms(word.end_sample),
        "confidence": round(word.probability, 4),
        "speaker_tag": word.speaker,
    }


def _ms(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE_HZ
