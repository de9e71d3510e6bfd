"""What a Sortformer remembers of a stream.

Layout of its bytes, little-endian: a header, a byte for each speaker, then what the network's cache
makes of itself. Any change to it is another name of the engine.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION

_HEADER = struct.Struct("<qqqB")


class Cache(Protocol):
    """What a network keeps of a stream. It never changes; hearing more gives another one."""

    def dump(self) -> bytes:
        """All of it."""
        ...


@dataclass(frozen=True, slots=True)
class SortformerMemory:
    """What was heard in whole chunks, and which of the network's outputs are whose."""

    cache: Cache
    whole: Cache
    """With what a flush decided; hearing goes on without it, unless a pause follows. Audio tells it
    again, so it is not written down."""
    origin: int
    """Where the audio began that frames are counted from."""
    num_frames: int
    """What of it is in ``cache``."""
    settled_sample: int
    outputs: tuple[int, ...]
    """Of the speakers, in order of appearance."""

    def dump(self) -> bytes:
        """See ``Memory``."""
        position = self.settled_sample, self.origin, self.num_frames
        head = _HEADER.pack(*position, len(self.outputs))
        return head + bytes(self.outputs) + self.cache.dump()


def parse(data: bytes, load: Callable[[bytes], Cache], num_outputs: int) -> SortformerMemory:
    """What ``SortformerMemory.dump`` wrote.

    Args:
        data: The bytes.
        load: Reads the cache.
        num_outputs: How many the network has.

    Raises:
        CheckpointError: These are not such bytes.

    """
    if len(data) < _HEADER.size:
        raise CheckpointError(f"the checkpoint is damaged: {len(data)} bytes of speakers")
    settled, origin, num_frames, known = _HEADER.unpack_from(data)
    outputs = tuple(data[_HEADER.size : _HEADER.size + known])
    if len(outputs) < known or len({*outputs}) < known or max(outputs, default=0) >= num_outputs:
        raise CheckpointError("the checkpoint is damaged: its speakers are none of the model's")
    if not (0 <= origin <= settled <= MAX_POSITION and 0 <= num_frames <= MAX_POSITION):
        raise CheckpointError("the checkpoint holds no state: it knows of what nobody has heard")
    cache = load(data[_HEADER.size + known :])
    return SortformerMemory(cache, cache, origin, num_frames, settled, outputs)
