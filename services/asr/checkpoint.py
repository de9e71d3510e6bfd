"""What another replica needs to go on with a stream, and how it travels."""

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from services.common.errors import CheckpointError
from services.common.timeline import samples
from services.common.wire import MAX_POSITION
from services.common.words import Word

VERSION = 2
"""Of the form below; a replica reads no other."""

_CRC = struct.Struct("<I")
_MAX_WINDOW_SAMPLES = samples(30)
"""The longest window that settings allow. Until a successor has heard as far as its predecessor,
it decodes nothing: it must not wait for a position that never comes."""


@dataclass(frozen=True, slots=True)
class State:
    """A stream between two steps, without its audio."""

    window_first_sample: int
    """Where the window starts: the first sample a successor needs."""
    through_sample: int
    """Where the last decoded window ended."""
    settled_sample: int
    """Where the last flush was: the speech before it needs no other."""
    committed: tuple[Word, ...] = ()
    """Words committed inside the window."""
    hypotheses: tuple[tuple[Word, ...], ...] = ()
    """The last hypotheses after them, oldest first: what the next one must agree with."""
    context: tuple[int, ...] = ()
    """Token ids of what was said before the window, oldest first."""
    language_code: str = ""
    """The language that the stream keeps to; empty while it is not known."""


def encode(state: State) -> bytes:
    """State -> its CRC-32, little-endian, and JSON: a few kB."""
    fields = {
        "version": VERSION,
        "window_first_sample": state.window_first_sample,
        "through_sample": state.through_sample,
        "settled_sample": state.settled_sample,
        "committed": list(map(_fields, state.committed)),
        "hypotheses": [list(map(_fields, words)) for words in state.hypotheses],
        "context": state.context,
        "language_code": state.language_code,
    }
    text = json.dumps(fields, separators=(",", ":")).encode()
    return _CRC.pack(zlib.crc32(text)) + text


def decode(data: bytes) -> State:
    """Bytes -> state.

    Raises:
        CheckpointError: These bytes are not a state of this version.

    """
    text = data[_CRC.size :]
    if data[: _CRC.size] != _CRC.pack(zlib.crc32(text)):
        raise CheckpointError(f"the checkpoint is damaged: it has {len(data)} bytes")
    try:
        fields = json.loads(text)
        if fields.pop("version") != VERSION:
            raise CheckpointError("the checkpoint is of another version")
        state = State(
            window_first_sample=_position(fields["window_first_sample"]),
            through_sample=_position(fields["through_sample"]),
            settled_sample=_position(fields["settled_sample"]),
            committed=tuple(map(_word, fields["committed"])),
            hypotheses=tuple(tuple(map(_word, words)) for words in fields["hypotheses"]),
            context=tuple(map(_token, fields["context"])),
            language_code=str(fields["language_code"]),
        )
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError("the checkpoint holds no state") from error
    if not 0 <= state.through_sample - state.window_first_sample <= _MAX_WINDOW_SAMPLES:
        raise CheckpointError("the checkpoint holds no state: nobody hears so far ahead")
    return state


def _fields(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "first_sample": word.first_sample,
        "end_sample": word.end_sample,
        "probability": word.probability,
        "token_ids": word.token_ids,
    }


def _word(fields: dict[str, Any]) -> Word:
    text = str(fields["text"])
    text.encode()  # JSON can spell what UTF-8 cannot.
    return Word(
        text=text,
        first_sample=_position(fields["first_sample"]),
        end_sample=_position(fields["end_sample"]),
        probability=float(fields["probability"]),
        token_ids=tuple(map(_token, fields["token_ids"])),
    )


def _position(value: Any) -> int:
    return _below(MAX_POSITION + 1, int(value))


def _token(value: Any) -> int:
    return _below(1 << 31, int(value))


def _below(limit: int, value: int) -> int:
    if not 0 <= value < limit:
        raise ValueError(f"{value} is not within 0 to {limit}")
    return value
