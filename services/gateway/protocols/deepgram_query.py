"""What a client asks of ``/v1/listen``, read from its query.

| parameter | what becomes of it |
|---|---|
| model | Deepgram's names, ``None`` and nothing mean the default; other names are looked up |
| language | BCP-47; ``multi`` and ``auto`` detect it; nothing means ``GATEWAY_LANGUAGE``, else en |
| encoding, sample_rate, channels, multichannel | raw samples, a lane per channel on demand |
| interim_results, endpointing, utterance_end_ms, vad_events | live messages |
| punctuate, smart_format, detect_entities | words as they are written |
| diarize, diarize_model | likewise, and who said them; the model changes nothing |
| filler_words | without it, uh and um are left out of English |
| keyterm, keywords | hotwords; keywords with a negative intensifier are left out |
| replace, search | what is written, and where it was said; words, not sounds, are looked for |
| extra | told again in the metadata |
| detect_language, utterances, utt_split, paragraphs | recordings |
| redact, callback | refused: to ignore them would harm |
| everything else | accepted, and changes nothing |
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from starlette.datastructures import QueryParams

from services.common.errors import InvalidRequestError
from services.common.timeline import samples
from services.gateway.audio_input import PACKET_RATES_HZ
from services.gateway.decoder import (
    AudioFormat,
    ContainerFormat,
    Encoding,
    PacketCodec,
    PacketFormat,
    RawFormat,
)
from services.gateway.languages import language_code
from services.gateway.protocols.deepgram_words import Replacement, Style, phrase
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.session_config import Diarization

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off", "none", "null", ""})
_NOTHING = frozenset({"", "none", "null"})

_RAW: dict[str, Encoding] = {
    "linear16": "linear16",
    "linear32": "float32",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
_PACKETS: dict[str, PacketCodec] = {codec: codec for codec in PACKET_RATES_HZ}
"""Encodings that streams bring in packets, unless they bring a container after all. Of a recording
nobody could tell where a packet ends."""
_CONTAINED = frozenset({"flac", "ogg-opus", "webm-opus"})
"""Encodings that are taken in a container alone."""
_VENDOR_MODEL = re.compile(
    r"(nova|enhanced|base|whisper|general|meeting|phonecall|voicemail|finance|conversationalai"
    r"|video|2-)",
    re.IGNORECASE,
)
"""How Deepgram's models begin: the default pool answers to them."""
_DEFAULT_LANGUAGE = "en"
_ENDPOINTING_MS = 10
_REFUSED = {
    "redact": "redaction is not supported, and text that must not be seen would be sent",
    "callback": "callbacks are not supported: the answer comes over this connection",
}
_MAX_REPLACEMENTS = 200
_MAX_QUERIES = 50
_UNHEEDED = frozenset(
    {"summarize", "sentiment", "topics", "intents", "custom_topic", "custom_intent"}
    | {"detect_entities"}
)
"""Parameters that change nothing and of which recordings are told so."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for."""

    model: str
    """Empty: the default."""
    language_code: str
    """Empty: detect it."""
    audio_format: AudioFormat
    multichannel: bool
    """Whether channels are transcribed apart."""
    lanes: int
    """How many lanes a stream has; how many a recording has shows when it has come."""
    interim_results: bool
    endpointing_samples: int | None
    """Silence after speech that ends an utterance; None: none does."""
    utterance_end_samples: int | None
    """Pause between words that is told; None: none is."""
    vad_events: bool
    punctuated: bool
    filler_words: bool
    diarize: bool
    """Whether words come with who said them."""
    hotwords: tuple[str, ...]
    replacements: tuple[Replacement, ...]
    queries: tuple[str, ...]
    """What is searched for."""
    extra: Mapping[str, str]
    detect_language: bool
    utterances: bool
    utt_split_samples: int
    paragraphs: bool
    warnings: tuple[tuple[str, str], ...]
    """Parameters that are not heeded, and why."""

    @property
    def style(self) -> Style:
        """How words are written."""
        return Style(self.punctuated, self.filler_words, self.tells_languages, self.replacements)

    @property
    def diarization(self) -> Diarization | None:
        """What is to be known of who speaks; None: nothing."""
        return Diarization() if self.diarize else None

    @property
    def tells_languages(self) -> bool:
        """Whether words come with their language."""
        return not self.language_code and not self.detect_language


def read_wish(
    query: QueryParams, *, live: bool, models: Collection[str], language: str = ""
) -> Wish:
    """Read a query.

    Args:
        query: What the client asks.
        live: Whether it streams; a recording it has sent as a whole.
        models: What the pools are called.
        language: Code of the language that is meant when none is named.

    Raises:
        RefusedError: A value cannot be read, or must not be ignored.

    """
    for name, why in _REFUSED.items():
        if any(value.lower() not in _FALSE for value in query.getlist(name)):
            raise _refused(name, why)
    detect = not live and _detects(query)
    smart = _flag(query, "smart_format")
    diarize = _flag(query, "diarize") or _text(query, "diarize_model").lower() not in _FALSE
    if live and _text(query, "diarize_model") == "v2":
        raise _refused("diarize_model", "'v2' is for recordings")
    audio_format, lanes = _audio(query, live=live)
    return Wish(
        model=_model(_text(query, "model"), models),
        language_code="" if detect else _language(_text(query, "language"), language),
        audio_format=audio_format,
        multichannel=_flag(query, "multichannel"),
        lanes=lanes,
        interim_results=_flag(query, "interim_results"),
        endpointing_samples=_endpointing(query),
        utterance_end_samples=_duration(query, "utterance_end_ms"),
        vad_events=_flag(query, "vad_events"),
        punctuated=smart or diarize or _flag(query, "punctuate") or _flag(query, "detect_entities"),
        filler_words=_flag(query, "filler_words"),
        diarize=diarize,
        hotwords=_hotwords(query),
        replacements=_replacements(query),
        queries=_queries(query),
        extra=dict(_pair(value) for value in query.getlist("extra")),
        detect_language=detect,
        utterances=_flag(query, "utterances"),
        utt_split_samples=samples(_number(query, "utt_split", 0.8)),
        paragraphs=_flag(query, "paragraphs") or smart,
        warnings=tuple(_warnings(query)),
    )


def _model(written: str, models: Collection[str]) -> str:
    known = written in models or not _VENDOR_MODEL.match(written)
    return written if known else ""


def _language(written: str, usual: str) -> str:
    if not written:
        return usual or _DEFAULT_LANGUAGE
    if written.lower() == "multi":
        return ""
    code = language_code(written)
    if code is None:
        raise _refused("language", f"{written!r} is no language that is known")
    return code


def _detects(query: QueryParams) -> bool:
    """Whether the language is to be detected. A list of candidates asks for it too."""
    return any(value.strip().lower() not in _FALSE for value in query.getlist("detect_language"))


def _audio(query: QueryParams, *, live: bool) -> tuple[AudioFormat, int]:
    encoding = _text(query, "encoding").lower()
    if encoding in _PACKETS and live:
        return _packets(query, _PACKETS[encoding]), 1
    if not encoding or encoding in _PACKETS or encoding in _CONTAINED:
        return ContainerFormat(encoding), 1
    if encoding not in _RAW:
        known = ", ".join((*_RAW, *_PACKETS, *sorted(_CONTAINED)))
        raise _refused("encoding", f"{encoding!r} is not one of: {known}")
    rate_hz, channels = _whole(query, "sample_rate", 0), _whole(query, "channels", 1)
    if not rate_hz:
        raise _refused("sample_rate", f"is needed with encoding {encoding!r}")
    lanes = channels if live and _flag(query, "multichannel") else 1
    try:
        return RawFormat(_RAW[encoding], rate_hz, channels), lanes
    except InvalidRequestError as error:
        raise _refused("sample_rate", str(error)) from None


def _packets(query: QueryParams, codec: PacketCodec) -> PacketFormat:
    rates_hz = PACKET_RATES_HZ[codec]
    if codec == "opus":  # which decodes the same, whatever it was made from
        return PacketFormat(codec, rates_hz[0])
    rate_hz = _whole(query, "sample_rate", rates_hz[0] if len(rates_hz) == 1 else 0)
    if not rate_hz:
        raise _refused("sample_rate", f"is needed with encoding {codec!r}")
    try:
        return PacketFormat(codec, rate_hz)
    except InvalidRequestError as error:
        raise _refused("sample_rate", str(error)) from None


def _endpointing(query: QueryParams) -> int | None:
    written = _text(query, "endpointing").lower()
    if written == "true" or not written:
        return samples(_ENDPOINTING_MS / 1000)
    return _duration(query, "endpointing")


def _duration(query: QueryParams, name: str) -> int | None:
    """A number of milliseconds as samples; None for nothing, false and 0."""
    if _text(query, name).lower() in _FALSE:
        return None
    return samples(_number(query, name, 0.0) / 1000) or None


def _hotwords(query: QueryParams) -> tuple[str, ...]:
    terms = [term.strip() for term in query.getlist("keyterm")]
    for keyword in query.getlist("keywords"):
        term, _, intensifier = keyword.partition(":")
        try:
            wanted = float(intensifier or 1) > 0
        except ValueError:
            raise _refused("keywords", f"{intensifier!r} is no intensifier") from None
        if wanted:
            terms.append(term.strip())
    return tuple(dict.fromkeys(term for term in terms if term))


def _replacements(query: QueryParams) -> tuple[Replacement, ...]:
    wanted = [text for text in query.getlist("replace") if text.lower() not in _NOTHING]
    if len(wanted) > _MAX_REPLACEMENTS:
        raise _refused("replace", f"is limited to {_MAX_REPLACEMENTS} terms")
    replacements = []
    for text in wanted:
        term, colon, written = text.partition(":")
        if not (colon and (said := phrase(term))):
            raise _refused("replace", f"{text!r} is no term with its replacement")
        replacements.append(Replacement(said, written.strip()))
    return tuple(replacements)


def _queries(query: QueryParams) -> tuple[str, ...]:
    wanted = tuple(text for text in query.getlist("search") if text.lower() not in _NOTHING)
    if len(wanted) > _MAX_QUERIES:
        raise _refused("search", f"is limited to {_MAX_QUERIES} terms")
    return wanted


def _warnings(query: QueryParams) -> list[tuple[str, str]]:
    return [
        (name, "is not supported, and changes nothing")
        for name in sorted(_UNHEEDED)
        if any(value.lower() not in _FALSE for value in query.getlist(name))
    ]


def _text(query: QueryParams, name: str) -> str:
    """The last value of a parameter; empty if there is none, or if Python's ``None`` was sent."""
    written = query.get(name, "").strip()
    return "" if written.lower() in _NOTHING else written


def _flag(query: QueryParams, name: str) -> bool:
    written = _text(query, name).lower()
    if written not in _TRUE | _FALSE:
        raise _refused(name, f"{written!r} is neither true nor false")
    return written in _TRUE


def _number(query: QueryParams, name: str, usual: float) -> float:
    written = _text(query, name)
    if not written:
        return usual
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e9:
        raise _refused(name, f"{written!r} is no number that makes sense here")
    return value


def _whole(query: QueryParams, name: str, usual: int) -> int:
    value = _number(query, name, usual)
    if value != int(value):
        raise _refused(name, f"{value!r} is no whole number")
    return int(value)


def _pair(written: str) -> tuple[str, str]:
    key, _, value = written.partition(":")
    return key, value


def _refused(param: str, message: str) -> RefusedError:
    return RefusedError(f"{param}: {message}", param=param, code="INVALID_QUERY_PARAMETER")
