"""Everything a successor needs, as bytes.

Layout, little-endian: the endpointer's state, then what the model remembers as float32, then the
CRC-32 of both. Positions that are absent are -1. Any change to it is another ``VERSION``.
"""

import math
import struct
import zlib

import numpy as np

from services.common.audio import FloatArray
from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION
from services.vad.detector import WINDOW_SAMPLES, Detector
from services.vad.endpointer import EndpointerState

VERSION = 1

_STATE = struct.Struct("<qqdq?qdq")
_CRC = struct.Struct("<I")
_ABSENT = -1


def format_of(detector: Detector) -> str:
    """The name of this layout, such as ``silero/1``."""
    return f"{detector.name}/{VERSION}"


def encode(state: EndpointerState, memory: FloatArray) -> bytes:
    """The state of a stream at the end of a whole window.  memory: (memory_size,) float32."""
    start = _ABSENT if state.start_sample is None else state.start_sample
    body = _STATE.pack(
        state.through_sample,
        state.floor_sample,
        state.probability,
        start,
        state.speaking,
        state.end_sample,
        state.quietest,
        state.quietest_sample,
    )
    body += memory.astype("<f4").tobytes()
    return body + _CRC.pack(zlib.crc32(body))


def decode(data: bytes, memory_size: int) -> tuple[EndpointerState, FloatArray]:
    """What ``encode`` was given.

    Raises:
        CheckpointError: These are not the bytes that ``encode`` made.

    """
    if len(data) != _STATE.size + 4 * memory_size + _CRC.size:
        raise CheckpointError(f"the checkpoint is damaged: it has {len(data)} bytes")
    body = data[: -_CRC.size]
    if _CRC.unpack(data[-_CRC.size :]) != (zlib.crc32(body),):
        raise CheckpointError("the checkpoint is damaged: its checksum is wrong")
    through, floor, probability, start, speaking, end, quietest, quietest_at = _STATE.unpack_from(
        body
    )
    memory = np.frombuffer(body, "<f4", offset=_STATE.size).astype(np.float32)
    if not np.isfinite(memory).all() or math.isnan(probability + quietest):
        raise CheckpointError("the checkpoint is damaged: it holds something that is no number")
    positions = (floor, end, quietest_at, through if start == _ABSENT else start)
    known = min(positions) >= 0 and max(positions) <= through + WINDOW_SAMPLES
    if not known or through > MAX_POSITION:
        raise CheckpointError("the checkpoint holds no state: it knows of what nobody has heard")
    if speaking and start == _ABSENT:
        raise CheckpointError("the checkpoint holds no state: somebody speaks who never started")
    state = EndpointerState(
        through_sample=through,
        floor_sample=floor,
        probability=probability,
        start_sample=None if start == _ABSENT else start,
        speaking=speaking,
        end_sample=end,
        quietest=quietest,
        quietest_sample=quietest_at,
    )
    return state, memory
