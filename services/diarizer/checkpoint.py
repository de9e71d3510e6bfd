"""Everything a successor needs besides audio, as bytes.

Layout, little-endian: where the stream stood on the clock of what was heard and where its audio
began there, then what the engine remembers, then the CRC-32 of both. Any change to it is another
``VERSION``.
"""

import struct
import zlib
from dataclasses import dataclass

from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION
from services.diarizer.diarizer import Diarizer, Memory

VERSION = 1

_STATE = struct.Struct("<qq")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class State:
    """A stream between two steps."""

    heard_first: int
    """On the clock of what was heard: where the audio begins that a successor hears again."""
    heard_sample: int
    """Where the stream stood."""
    memory: Memory


def format_of(diarizer: Diarizer) -> str:
    """The name of this layout, such as ``online/1``."""
    return f"{diarizer.name}/{VERSION}"


def encode(state: State) -> bytes:
    """The state of a stream."""
    body = _STATE.pack(state.heard_first, state.heard_sample) + state.memory.dump()
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes, diarizer: Diarizer) -> State:
    """What ``encode`` was given.

    Raises:
        CheckpointError: These are not the bytes that ``encode`` made.

    """
    if len(data) < _STATE.size + _CRC.size:
        raise CheckpointError(f"the checkpoint is damaged: it has {len(data)} bytes")
    body = data[: -_CRC.size]
    if _CRC.unpack(data[-_CRC.size :]) != (zlib.crc32(body),):
        raise CheckpointError("the checkpoint is damaged: its checksum is wrong")
    first, end = _STATE.unpack_from(body)
    memory = diarizer.load(body[_STATE.size :])
    if not 0 <= first <= end <= MAX_POSITION or memory.settled_sample > end:
        raise CheckpointError("the checkpoint holds no state: it knows of what nobody has heard")
    if end - first > diarizer.context_samples:
        raise CheckpointError("the checkpoint holds no state: its audio is too long")
    return State(first, end, memory)
