"""What a client says on ``/v1/listen``: audio, or one of a few commands in JSON."""

import json
import re
from dataclasses import dataclass
from typing import TypeAlias

_MAX_COMMAND_BYTES = 200
_COMMAND = re.compile(rb'\s*\{\s*"type"')
"""How a command begins that comes in a binary frame."""
_MAX_TEXT_CHARS = 1 << 16
"""A text is read in one go, and other sessions wait meanwhile."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """The client is still there."""


@dataclass(frozen=True, slots=True)
class CloseStream:
    """The audio is complete."""


@dataclass(frozen=True, slots=True)
class Finalize:
    """Everything said so far is to be final."""

    channel: int | None
    """None: on every channel."""
    text: str

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Configure:
    """Settings are to change."""

    keyterms: tuple[str, ...] | None
    """None: they stay as they are."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A text that means nothing here."""

    description: str
    text: str


Command: TypeAlias = KeepAlive | CloseStream | Finalize | Configure | Malformed


def read_data(data: bytes) -> bytes | Command:
    """A binary frame: audio, unless there is a command in it."""
    if not data:
        return CloseStream()
    if len(data) > _MAX_COMMAND_BYTES or not _COMMAND.match(data):
        return data
    command = read_text(data.decode(errors="replace"))
    return data if isinstance(command, Malformed) else command


def read_text(text: str) -> Command:
    """The command in a text frame."""
    if len(text) > _MAX_TEXT_CHARS:
        return Malformed(f"a text is limited to {_MAX_TEXT_CHARS} characters", text)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return Malformed("not JSON", text)
    match told:
        case {"type": "KeepAlive"}:
            return KeepAlive()
        case {"type": "CloseStream"}:
            return CloseStream()
        case {"type": "Finalize"}:
            return _finalize(told.get("channel"), text)
        case {"type": "Configure"}:
            return _configure(told.get("keyterms"), text)
    return Malformed("no message of a known type", text)


def _finalize(channel: object, text: str) -> Command:
    if channel is None or (isinstance(channel, int) and not isinstance(channel, bool)):
        return Finalize(channel, text)
    return Malformed("channel is not a number", text)


def _configure(keyterms: object, text: str) -> Command:
    if keyterms is None:
        return Configure(None)
    if isinstance(keyterms, list) and all(isinstance(term, str) for term in keyterms):
        return Configure(tuple(keyterms))
    return Malformed("keyterms is not a list of texts", text)
