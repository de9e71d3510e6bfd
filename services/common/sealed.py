"""JSON that shows when it was damaged: how the state of a stream that is made of words travels.

Whoever reads it knows that the bytes are as they were written, and still believes none of them.
"""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION

State = TypeVar("State")

_CRC = struct.Struct("<I")


def seal(fields: Mapping[str, Any]) -> bytes:
    """Fields -> the CRC-32 of what follows, little-endian, and JSON."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    return _CRC.pack(zlib.crc32(text)) + text


def unseal(data: bytes, read: Callable[[Any], State]) -> State:
    """What ``read`` makes of the fields that ``seal`` was given.

    Raises:
        CheckpointError: The bytes are damaged, or ``read`` cannot make anything of them.

    """
    text = data[_CRC.size :]
    if data[: _CRC.size] != _CRC.pack(zlib.crc32(text)):
        raise CheckpointError(f"the checkpoint is damaged: it has {len(data)} bytes")
    try:
        return read(json.loads(text))
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # Not in the words of the error, which may be those of the checkpoint.
        raise CheckpointError("the checkpoint holds no state") from error


def text_of(value: Any) -> str:
    """A text that can be written again.

    Raises:
        ValueError: JSON can spell it, UTF-8 cannot.

    """
    text = str(value)
    text.encode()
    return text


def position_of(value: Any) -> int:
    """A place on a clock.

    Raises:
        ValueError: No clock gets there.

    """
    return below(MAX_POSITION + 1, int(value))


def below(limit: int, value: int) -> int:
    """A number from 0 to below a limit.

    Raises:
        ValueError: It is another one.

    """
    if not 0 <= value < limit:
        raise ValueError(f"{value} is not within 0 to {limit}")
    return value
