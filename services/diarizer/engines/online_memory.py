"""What the online engine remembers of a stream.

Layout of its bytes, little-endian: a header, the voices as float32, then for each frame decided
lately who spoke in it, a bit for each voice. Any change to it is another name of the engine.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.common.errors import CheckpointError
from services.common.wire import MAX_POSITION
from services.diarizer.engines.voices import Voice

_HEADER = struct.Struct("<qqIII")


@dataclass(frozen=True, slots=True)
class OnlineMemory:
    """Voices, whom the past was ascribed to, and sound that need not be looked at again."""

    voices: tuple[Voice, ...]
    settled_sample: int
    settled_frame: int
    """The first frame that is not decided."""
    labels: NDArray[np.bool_]
    """(frames, voices) who spoke in the frames before it, the newest last."""
    sound: Mapping[int, FloatArray] = field(default_factory=dict)
    """Voice frames of the window, by the number of the step that made them. A successor makes them
    again from the audio."""

    def dump(self) -> bytes:
        """See ``Memory``."""
        size = len(self.voices[0].total) if self.voices else 0
        counts = size, len(self.voices), len(self.labels)
        known = [np.append(voice.total, np.float32(voice.seconds)) for voice in self.voices]
        return b"".join(
            [
                _HEADER.pack(self.settled_sample, self.settled_frame, *counts),
                np.array(known, "<f4").tobytes(),
                np.packbits(self.labels, axis=1).tobytes(),
            ]
        )


def parse(data: bytes, size: int) -> OnlineMemory:
    """What ``OnlineMemory.dump`` wrote; ``size`` is that of an embedding.

    Raises:
        CheckpointError: These are not such bytes.

    """
    if len(data) < _HEADER.size:
        raise CheckpointError(f"the checkpoint is damaged: {len(data)} bytes of speakers")
    settled, frame, known_size, num_voices, num_frames = _HEADER.unpack_from(data)
    if num_voices and known_size != size:
        raise CheckpointError(f"the checkpoint has voices of {known_size} numbers, not {size}")
    row = (num_voices + 7) // 8
    end_of_voices = _HEADER.size + 4 * num_voices * (size + 1)
    if len(data) != end_of_voices + num_frames * row:
        raise CheckpointError(f"the checkpoint is damaged: {len(data)} bytes of speakers")
    known = np.frombuffer(data[_HEADER.size : end_of_voices], "<f4").reshape(num_voices, size + 1)
    bits = np.frombuffer(data[end_of_voices:], np.uint8).reshape(num_frames, row)
    labels = np.unpackbits(bits, axis=1, count=num_voices).astype(bool)
    if not np.isfinite(known).all():
        raise CheckpointError("the checkpoint is damaged: it holds something that is no number")
    if not (0 <= settled <= MAX_POSITION and num_frames <= frame <= MAX_POSITION):
        raise CheckpointError("the checkpoint holds no state: it knows of what nobody has heard")
    voices = tuple(Voice(line[:-1].astype(np.float32), float(line[-1])) for line in known)
    return OnlineMemory(voices, settled, frame, labels)
