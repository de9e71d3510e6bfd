"""What a client of ``/v1/realtime`` asks for, read from its updates and shown to it in return.

| update | shown | meaning |
|---|---|---|
| ``audio.input.format``, ``input_audio_format`` | yes | PCM of any rate, u-law or A-law at 8 kHz |
| ``...transcription.model`` | yes | a model of ours, or any of the names in ``_DEFAULT_MODELS`` |
| | | ``gpt-4o-transcribe-diarize``: who says it, too |
| ``...transcription.language`` | yes | absent: the only one of ``languages``, else detected |
| ``...transcription.prompt``, ``keywords`` | yes | what the recogniser is told |
| ``turn_detection`` | yes | ``server_vad``, ``semantic_vad``; null: the client commits |
| ``noise_reduction`` | yes | accepted; nothing is done about noise |
| ``include`` | yes | ``item.input_audio_transcription.logprobs`` |

Everything else is accepted and ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from services.gateway.audio_input import Encoding, RawFormat
from services.gateway.languages import language_code
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.protocols.openai_form import model_name
from services.gateway.session_config import Diarization, SessionConfig

Body: TypeAlias = dict[str, Any]

LOGPROBS = "item.input_audio_transcription.logprobs"

PCM_RATE_HZ = 24_000
_TELEPHONE_RATE_HZ = 8000
_PCM = RawFormat("linear16", PCM_RATE_HZ)

_ENCODINGS: Mapping[str, Encoding] = {
    "audio/pcm": "linear16",
    "audio/pcmu": "mulaw",
    "audio/pcma": "alaw",
    "pcm16": "linear16",
    "g711_ulaw": "mulaw",
    "g711_alaw": "alaw",
}
"""The formats by both their names, of now and of the beta."""

_LIVE_MODELS = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Beginnings of names of models whose clients end turns themselves, unless they say otherwise."""
_DEFAULT_MODELS = (*_LIVE_MODELS, "gpt-realtime", "gpt-4o-realtime", "gpt-4o-mini-realtime")
"""Beginnings of names that the default pool answers to. Models that converse are among them: they
stand in the address of clients that only want to be transcribed."""

_DIARIZING_MODEL = "gpt-4o-transcribe-diarize"
"""With this name a client asks who speaks; there is no other way."""

_SILENCE_MS = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
"""Silence that ends a turn of ``semantic_vad``: nobody judges here whether a sentence is over."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """When the gateway ends a turn by itself."""

    kind: str = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    """How long before speech its item begins."""
    silence_ms: int = 500
    eagerness: str = "auto"

    def shown(self) -> Body:
        """As the client writes it."""
        if self.kind == "semantic_vad":
            return {"type": self.kind, "eagerness": self.eagerness}
        return {
            "type": self.kind,
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_ms,
        }


@dataclass(frozen=True, slots=True)
class Transcription:
    """What is transcribed, and how."""

    model: str = ""
    language: str = ""
    languages: tuple[str, ...] = ()
    prompt: str = ""
    keywords: tuple[str, ...] = ()

    def shown(self) -> Body:
        """As the client writes it."""
        lists = {"languages": list(self.languages), "keywords": list(self.keywords)}
        return {
            "model": self.model or None,
            "language": self.language or None,
            "prompt": self.prompt,
            **{name: texts for name, texts in lists.items() if texts},
        }


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client has asked for so far."""

    audio: RawFormat = _PCM
    transcription: Transcription | None = None
    """None: it has not said anything about it."""
    turns: TurnDetection | None = TurnDetection()
    """None: the client ends them."""
    chose_turns: bool = False
    noise_reduction: str | None = None
    include: tuple[str, ...] | None = None

    @property
    def with_logprobs(self) -> bool:
        """Whether the client wants to know how probable words are."""
        return LOGPROBS in (self.include or ())

    @property
    def diarized(self) -> bool:
        """Whether speakers are to be told apart."""
        model = self.transcription.model if self.transcription else ""
        return model_name(model) == _DIARIZING_MODEL

    def config(self, base: SessionConfig) -> SessionConfig:
        """What a session has to do for it.

        Args:
            base: What is the same for all sessions of the connection.

        """
        wanted = self.transcription or Transcription()
        only = wanted.languages[0] if len(wanted.languages) == 1 else ""
        config = replace(
            base,
            language_code=language_code(wanted.language or only) or "",
            model=_known_model(wanted.model),
            prompt=wanted.prompt,
            hotwords=wanted.keywords,
            diarization=Diarization() if self.diarized else None,
        )
        if self.turns is None:
            return config
        return replace(
            config,
            onset_threshold=min(max(self.turns.threshold, 0.05), 0.95),
            hangover_ms=min(max(self.turns.silence_ms, 32), 10_000),
        )

    def shown(self) -> Body:
        """The session as it is, in the words of today."""
        return {
            "type": "transcription",
            "object": "realtime.transcription_session",
            "include": None if self.include is None else list(self.include),
            "audio": {
                "input": {
                    "format": _format_shown(self.audio),
                    "transcription": self.transcription and self.transcription.shown(),
                    "noise_reduction": self._noise_reduction_shown(),
                    "turn_detection": self.turns and self.turns.shown(),
                }
            },
        }

    def shown_flat(self) -> Body:
        """The session as it is, in the words of the beta."""
        name = next(
            name
            for name, encoding in _ENCODINGS.items()
            if encoding == self.audio.encoding and not name.startswith("audio/")
        )
        return {
            "object": "realtime.transcription_session",
            "include": None if self.include is None else list(self.include),
            "input_audio_format": name,
            "input_audio_transcription": self.transcription and self.transcription.shown(),
            "input_audio_noise_reduction": self._noise_reduction_shown(),
            "turn_detection": self.turns and self.turns.shown(),
        }

    def _noise_reduction_shown(self) -> Body | None:
        return None if self.noise_reduction is None else {"type": self.noise_reduction}


def first_wish(*, model: str, audio_format: str) -> Wish:
    """What the address of a connection says.

    Args:
        model: Of the transcription; clients name it there, or one that converses, or none.
        audio_format: Such as ``pcm_s16le_16000``; empty: the default.

    Raises:
        RefusedError: There is no such format.

    """
    wish = Wish()
    if audio_format:
        wish = replace(wish, audio=_named_format(audio_format))
    if model:
        wish = replace(wish, transcription=Transcription(model=model))
    return _with_turns_of_model(wish) if model else wish


def updated(wish: Wish, session: object) -> Wish:
    """A wish after an update. What is absent stays as it is, null takes it back.

    Args:
        wish: What was asked for before.
        session: The session in an update, in the words of today or of the beta.

    Raises:
        RefusedError: A parameter has a wrong form; its name is in the error.

    """
    whole = Fields(session, "session")
    nested = whole.fields("audio").fields("input")

    def given(name: str, flat: str) -> tuple[Any, str] | None:
        for fields, key in ((nested, name), (whole, flat)):
            if key in fields:
                return fields.raw(key), fields.path(key)
        return None

    if (found := given("format", "input_audio_format")) is not None:
        wish = replace(wish, audio=_format(*found))
    if (found := given("noise_reduction", "input_audio_noise_reduction")) is not None:
        kind = None if found[0] is None else Fields(*found).text("type")
        wish = replace(wish, noise_reduction=kind)
    if "include" in whole:
        listed = None if whole.raw("include") is None else whole.texts("include")
        wish = replace(wish, include=listed)
    if (found := given("transcription", "input_audio_transcription")) is not None:
        wish = replace(wish, transcription=_transcription(wish.transcription, *found))
    if (found := given("turn_detection", "turn_detection")) is not None:
        wish = replace(wish, turns=_turns(*found), chose_turns=True)
    elif not wish.chose_turns and wish.transcription and wish.transcription.model:
        wish = _with_turns_of_model(wish)
    return wish


class Fields:
    """The fields of an object in an update, and where it is."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise refused(path, "is not an object")
        self._fields: Body = value
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def path(self, name: str) -> str:
        """What a field is called in errors."""
        return f"{self._path}.{name}"

    def raw(self, name: str) -> Any:
        """What a field holds; None, if there is no such field."""
        return self._fields.get(name)

    def shown(self) -> Body:
        """The object as it came, without what nobody but the client may know."""
        return {name: value for name, value in self._fields.items() if name != "client_secret"}

    def fields(self, name: str) -> "Fields":
        """An object; an empty one, if there is none."""
        value = self.raw(name)
        return Fields({} if value is None else value, self.path(name))

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects; an empty one, if there is none."""
        value = self.raw(name) or []
        if not isinstance(value, list):
            raise refused(self.path(name), "is not a list")
        return [Fields(item, f"{self.path(name)}[{at}]") for at, item in enumerate(value)]

    def text(self, name: str, default: str = "") -> str:
        """A string; null is the default."""
        value = self.raw(name)
        if not isinstance(value, str | None):
            raise refused(self.path(name), "is not a string")
        return default if value is None else value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings; null is an empty one."""
        value = self.raw(name)
        value = [] if value is None else value
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise refused(self.path(name), "is not a list of strings")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """True or false; null is false."""
        value = self.raw(name)
        if not isinstance(value, bool | None):
            raise refused(self.path(name), "is neither true nor false")
        return bool(value)

    def number(self, name: str, default: float, limit: float) -> float:
        """A number from 0 to a limit; null is the default."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
            raise refused(self.path(name), f"is not a number from 0 to {limit:g}")
        return value


def refused(param: str, why: str) -> RefusedError:
    """The error that says that a parameter is wrong."""
    return RefusedError(f"{param} {why}", param=param, code="invalid_value")


def _format(value: object, path: str) -> RawFormat:
    if value is None:
        return _PCM
    if isinstance(value, str):
        return _named_format(value, path)
    fields = Fields(value, path)
    default = _named_format(fields.text("type", "audio/pcm"), fields.path("type"))
    if default.encoding != "linear16":
        return default
    rate_hz = fields.number("rate", PCM_RATE_HZ, 192_000)
    if rate_hz < _TELEPHONE_RATE_HZ:
        raise refused(fields.path("rate"), "is not a number from 8000 to 192000")
    return RawFormat("linear16", int(rate_hz))


def _named_format(name: str, path: str = "input_audio_format") -> RawFormat:
    if name.startswith("pcm_s16le_") and name.removeprefix("pcm_s16le_").isdecimal():
        return _format({"rate": int(name.removeprefix("pcm_s16le_"))}, path)
    if (encoding := _ENCODINGS.get(name)) is None:
        raise refused(path, f"is not one of {', '.join(_ENCODINGS)}")
    return RawFormat(encoding, PCM_RATE_HZ if encoding == "linear16" else _TELEPHONE_RATE_HZ)


def _format_shown(audio: RawFormat) -> Body:
    name = next(name for name, encoding in _ENCODINGS.items() if encoding == audio.encoding)
    rate = {"rate": audio.sample_rate_hz} if audio.encoding == "linear16" else {}
    return {"type": name, **rate}


def _transcription(before: Transcription | None, value: object, path: str) -> Transcription | None:
    if value is None:
        return None
    fields = Fields(value, path)
    known = before or Transcription()
    known = Transcription(
        model=fields.text("model") if "model" in fields else known.model,
        language=fields.text("language") if "language" in fields else known.language,
        languages=fields.texts("languages") if "languages" in fields else known.languages,
        prompt=fields.text("prompt") if "prompt" in fields else known.prompt,
        keywords=fields.texts("keywords") if "keywords" in fields else known.keywords,
    )
    for written in (known.language, *known.languages):
        if language_code(written) is None:
            raise refused(fields.path("language"), f"names no language that is known: {written!r}")
    return known


def _turns(value: object, path: str) -> TurnDetection | None:
    if value is None:
        return None
    fields = Fields(value, path)
    default = TurnDetection()
    match fields.text("type", default.kind):
        case "none":
            return None
        case "server_vad":
            return TurnDetection(
                threshold=fields.number("threshold", default.threshold, 1),
                prefix_padding_ms=int(
                    fields.number("prefix_padding_ms", default.prefix_padding_ms, 60_000)
                ),
                silence_ms=int(fields.number("silence_duration_ms", default.silence_ms, 60_000)),
            )
        case "semantic_vad":
            eagerness = fields.text("eagerness", default.eagerness)
            if eagerness not in _SILENCE_MS:
                raise refused(fields.path("eagerness"), f"is not one of {', '.join(_SILENCE_MS)}")
            return TurnDetection(
                "semantic_vad", silence_ms=_SILENCE_MS[eagerness], eagerness=eagerness
            )
    raise refused(fields.path("type"), "is neither server_vad nor semantic_vad")


def _with_turns_of_model(wish: Wish) -> Wish:
    assert wish.transcription is not None
    live = wish.transcription.model.startswith(_LIVE_MODELS)
    return replace(wish, turns=None if live else wish.turns or TurnDetection())


def _known_model(written: str) -> str:
    name = model_name(written)
    return "" if name.startswith(_DEFAULT_MODELS) else name
