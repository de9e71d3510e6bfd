"""What a client asks of OpenAI's transcription API, read from its form."""

import base64
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from starlette.datastructures import UploadFile

from services.gateway.languages import language_code
from services.gateway.pools import ModelInfo
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.session import Task
from services.gateway.session_config import MAX_SPEAKERS
from services.gateway.uploads import Upload

DIARIZED = "diarized_json"
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", DIARIZED)
_READ = frozenset({"text", "srt", "vtt"})
"""The formats that are for people."""
_STREAMED = frozenset({"json", "text", DIARIZED})
_GRANULARITIES = ("word", "segment")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"", "false", "0", "no", "off", "none", "null"})
_REFERENCES = "known_speaker_references"
_DATA_URL = re.compile(r"data:([^,]*?);base64", re.IGNORECASE)
_MAX_KNOWN = 4
"""As with OpenAI."""
_MAX_NAME_CHARS = 100
_COUNT = re.compile(r"[0-9]{1,2}")
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """Somebody who may be heard in the recording."""

    name: str
    mime_type: str
    """What the client calls the file."""
    file: bytes
    """Speech of theirs, in any container."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for, checked as far as the form alone allows."""

    file: UploadFile
    model: str
    language_code: str
    """Empty: detect it."""
    prompt: str
    response_format: str
    temperature: float
    with_words: bool
    with_probabilities: bool
    streamed: bool
    """Whether the text is to come while it is found, for the formats that are only text."""
    keywords: tuple[str, ...]
    diarized: bool
    """Whether speakers are to be told apart; what follows matters only then."""
    num_speakers: int
    """How many there are; 0: unknown."""
    max_speakers: int
    """Most there can be; 0: unknown."""
    known_speakers: tuple[KnownSpeaker, ...]

    @property
    def numbered(self) -> bool:
        """Whether people read the labels of speakers, and not programs."""
        return self.response_format in _READ

    @property
    def names(self) -> list[str]:
        """What the speakers who are known are called."""
        return [speaker.name for speaker in self.known_speakers]


def read_wish(upload: Upload) -> Wish:
    """Read a form.

    Raises:
        RefusedError: A parameter is missing or wrong.

    """
    response_format = _one_of("response_format", upload.text("response_format") or "json", FORMATS)
    names, references = upload.texts("known_speaker_names"), upload.texts(_REFERENCES)
    diarized = _flag(upload, "diarize") or response_format == DIARIZED
    wish = Wish(
        file=_file(upload),
        model=model_name(upload.text("model")),
        language_code=_language(upload.text("language") or _only(upload.texts("languages"))),
        prompt=upload.text("prompt"),
        response_format=response_format,
        temperature=_temperature(upload.text("temperature") or "0"),
        with_words="word" in _granularities(upload),
        with_probabilities="logprobs" in upload.texts("include"),
        streamed=_flag(upload, "stream") and response_format in _STREAMED,
        keywords=tuple(upload.texts("keywords")),
        diarized=diarized,
        num_speakers=_count(upload, "num_speakers"),
        max_speakers=_count(upload, "max_speakers"),
        known_speakers=_known(names, references) if diarized else (),
    )
    _check_numbers(wish)
    return wish


def model_name(written: str) -> str:
    """A model's name without the date of a snapshot, as in ``gpt-4o-transcribe-2025-03-20``."""
    return _DATED.sub("", written.strip())


def check_model(info: ModelInfo, wish: Wish, task: Task) -> None:
    """See whether a model can do what is asked.

    Raises:
        RefusedError: It lacks the task or the language, or the task has no such format.

    """
    if task not in info.tasks:
        raise _refused("model", f"model {info.name} cannot {task.value}", "unsupported_model")
    if wish.diarized and task is Task.TRANSLATE:
        param = "response_format" if wish.response_format == DIARIZED else "diarize"
        raise _refused(param, "translations do not say who speaks")
    if wish.language_code and wish.language_code not in info.language_codes:
        message = f"model {info.name} does not understand language {wish.language_code!r}"
        raise _refused("language", message, "unsupported_language")


def _file(upload: Upload) -> UploadFile:
    if (file := upload.files.get("file")) is None:
        sent = "is there, but not as a file" if upload.text("file") else "is missing"
        raise _refused("file", f"the field 'file', which holds the audio, {sent}", "missing_file")
    if not file.size:
        raise _refused("file", "the file is empty", "empty_file")
    return file


def _language(written: str) -> str:
    code = language_code(written)
    if code is None:
        message = f"language {written!r} is unknown; ISO 639-1 codes such as 'en' are known"
        raise _refused("language", message, "invalid_language_format")
    return code


def _only(candidates: Sequence[str]) -> str:
    """The language, if it is the only candidate; else it has to be detected."""
    return candidates[0] if len(candidates) == 1 else ""


def _known(names: Sequence[str], references: Sequence[str]) -> tuple[KnownSpeaker, ...]:
    if len(names) != len(references):
        message = f"there are {len(names)} names of speakers, and {len(references)} references"
        raise _refused("known_speaker_names", message)
    if len(names) > _MAX_KNOWN:
        raise _refused("known_speaker_names", f"no more than {_MAX_KNOWN} speakers can be known")
    for name in names:
        if not 1 <= len(name) <= _MAX_NAME_CHARS:
            message = f"the name of a speaker has 1 to {_MAX_NAME_CHARS} characters"
            raise _refused("known_speaker_names", message)
    return tuple(
        KnownSpeaker(name, *_data(number, reference))
        for number, (name, reference) in enumerate(zip(names, references, strict=True), 1)
    )


def _check_numbers(wish: Wish) -> None:
    if wish.max_speakers and wish.num_speakers > wish.max_speakers:
        message = f"there are {wish.num_speakers} speakers, and no more than {wish.max_speakers}"
        raise _refused("num_speakers", message)
    most = wish.num_speakers or wish.max_speakers
    if most and len(wish.known_speakers) > most:
        message = f"{len(wish.known_speakers)} of {most} speakers cannot be known"
        raise _refused("known_speaker_names", message)


def _data(number: int, reference: str) -> tuple[str, bytes]:
    """The MIME type in a data URL, and what it holds."""
    head, comma, encoded = reference.partition(",")
    if not (found := _DATA_URL.fullmatch(head.strip())) or not comma:
        raise refused_reference(number, "is no data URL in Base64")
    try:
        return found[1], base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError:
        raise refused_reference(number, "cannot be decoded from Base64") from None


def refused_reference(number: int, why: str) -> RefusedError:
    """What is wrong with the reference to a speaker; the first is number 1."""
    return _refused(_REFERENCES, f"reference {number} {why}")


def _granularities(upload: Upload) -> list[str]:
    name = "timestamp_granularities"
    return [_one_of(name, written, _GRANULARITIES) for written in upload.texts(name)]


def _temperature(written: str) -> float:
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise _refused("temperature", f"temperature {written!r} is not a number from 0 to 1")
    return value


def _count(upload: Upload, name: str) -> int:
    written = upload.text(name).strip() or "0"
    if not _COUNT.fullmatch(written) or int(written) > MAX_SPEAKERS:
        raise _refused(name, f"{name} {written!r} is not a whole number from 0 to {MAX_SPEAKERS}")
    return int(written)


def _flag(upload: Upload, name: str) -> bool:
    written = upload.text(name).strip().lower()
    if written not in _TRUE | _FALSE:
        raise _refused(name, f"{written!r} is neither true nor false")
    return written in _TRUE


def _one_of(param: str, written: str, known: Collection[str]) -> str:
    if written not in known:
        raise _refused(param, f"{written!r} is not one of: {', '.join(known)}")
    return written


def _refused(param: str, message: str, code: str = "invalid_value") -> RefusedError:
    return RefusedError(message, param=param, code=code)
