"""What a client asks of OpenAI's transcription API, read from its form."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from starlette.datastructures import UploadFile

from services.gateway.languages import language_code
from services.gateway.pools import ModelInfo
from services.gateway.protocols.http_errors import RefusedError
from services.gateway.session import Task
from services.gateway.uploads import Upload

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_STREAMED = frozenset({"json", "text"})
_GRANULARITIES = ("word", "segment")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"", "false", "0", "no", "off", "none", "null"})
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


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


def read_wish(upload: Upload) -> Wish:
    """Read a form.

    Raises:
        RefusedError: A parameter is missing or wrong.

    """
    response_format = _format(upload.text("response_format") or "json")
    return Wish(
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
    )


def model_name(written: str) -> str:
    """A model's name without the date of a snapshot, as in ``gpt-4o-transcribe-2025-03-20``."""
    return _DATED.sub("", written.strip())


def check_model(info: ModelInfo, wish: Wish, task: Task) -> None:
    """See whether a model can do what is asked.

    Raises:
        RefusedError: It lacks the task or the language.

    """
    if task not in info.tasks:
        raise _refused("model", f"model {info.name} cannot {task.value}", "unsupported_model")
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


def _format(written: str) -> str:
    if written == "diarized_json":
        raise _refused("response_format", "diarized_json is not supported: speakers are not told")
    return _one_of("response_format", written, FORMATS)


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
