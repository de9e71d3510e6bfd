"""What every stage checks of the messages that all stages share."""

from collections.abc import AsyncIterator
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from services.common.audio import BYTES_PER_SAMPLE, FloatArray, pcm_to_float
from services.common.errors import CheckpointError, ClientLeftError, InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ, samples
from voxmesh.common.v1 import audio_pb2, stage_pb2

MAX_FRAME_SAMPLES = 10 * SAMPLE_RATE_HZ
"""Most audio in one message."""
MAX_POSITION = 1 << 48
"""The end of every clock: 557 years of audio. Beyond it, arithmetic could overflow somewhere."""

RequestT = TypeVar("RequestT", bound=Message)


async def opening(requests: AsyncIterator[RequestT]) -> RequestT:
    """The first message of a stream, which is an ``open``.

    Raises:
        InvalidRequestError: It is another one.
        ClientLeftError: There is none.

    """
    async for first in requests:
        if first.WhichOneof("payload") != "open":
            raise InvalidRequestError("the first message must be open")
        return first
    raise ClientLeftError


def first_sample_of(first_sample: int, checkpoint: stage_pb2.Checkpoint | None) -> int:
    """Where a stream starts.

    Raises:
        InvalidRequestError: Not on the clock, or not where the checkpoint goes on.

    """
    if not 0 <= first_sample < MAX_POSITION:
        raise InvalidRequestError(f"open.first_sample is {first_sample}: not a position")
    if checkpoint is not None and first_sample != checkpoint.replay_from_sample:
        raise InvalidRequestError(
            f"open.first_sample is {first_sample}, but the checkpoint goes on from"
            f" {checkpoint.replay_from_sample}"
        )
    return first_sample


def state_of(checkpoint: stage_pb2.Checkpoint | None, accepted_format: str) -> bytes | None:
    """Where a predecessor stood; None: start afresh.

    Raises:
        CheckpointError: Another engine wrote it.

    """
    if checkpoint is None:
        return None
    if checkpoint.format != accepted_format:
        raise CheckpointError(
            f"the checkpoint is {checkpoint.format!r}; this replica reads {accepted_format!r}"
        )
    return checkpoint.state


def samples_of(frame: audio_pb2.AudioFrame) -> FloatArray:
    """The samples of a message of audio, float32 in [-1, 1).

    Raises:
        InvalidRequestError: It is empty, too long, or holds half a sample.

    """
    if len(frame.pcm) % BYTES_PER_SAMPLE:
        raise InvalidRequestError(f"audio.pcm has {len(frame.pcm)} bytes: half a sample")
    if not 0 < len(frame.pcm) <= MAX_FRAME_SAMPLES * BYTES_PER_SAMPLE:
        raise InvalidRequestError(
            f"audio.pcm has {len(frame.pcm) // BYTES_PER_SAMPLE} samples, not 1 to"
            f" {MAX_FRAME_SAMPLES}"
        )
    return pcm_to_float(frame.pcm)


def gap_samples_of(gap: audio_pb2.Gap) -> int:
    """How long a gap is.

    Raises:
        InvalidRequestError: It is empty, or reaches beyond the clock.

    """
    if gap.num_samples < 1:
        raise InvalidRequestError(f"gap.num_samples is {gap.num_samples}, not at least 1")
    if gap.first_sample + gap.num_samples > MAX_POSITION:
        raise InvalidRequestError(f"gap goes beyond position {MAX_POSITION}")
    return gap.num_samples


def duration_samples(name: str, duration: Duration, low_s: float, high_s: float) -> int:
    """How many samples last as long as a setting of a stream.

    Raises:
        InvalidRequestError: It is out of range; the message names it.

    """
    value_s = duration.seconds + duration.nanos / 1e9
    if not low_s <= value_s <= high_s:
        raise InvalidRequestError(f"config.{name} is {value_s:g} s, not {low_s:g} to {high_s:g} s")
    return samples(value_s)
