"""Protos <-> the domain: what clients ask for, checked, and what they are told."""

from services.common.audio import BYTES_PER_SAMPLE, FloatArray, pcm_to_float
from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ
from services.common.wire import duration_samples
from services.diarizer.diarizer import Wishes
from services.diarizer.stream import Snapshot, Turns
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb

MAX_SPEAKERS = 60
"""Whose voices a checkpoint has room for."""
_LATENCY_S = (0.2, 5.0)
_ENROLLED_S = (1, 30)


def wishes_of(config: pb.DiarizeConfig, max_speakers: int) -> Wishes:
    """What a stream knows of its speakers.

    Args:
        config: What it asks for.
        max_speakers: Most speakers there can be if it does not say.

    Raises:
        InvalidRequestError: A number is out of range; the message names it.

    """
    known = _within("num_speakers", config.num_speakers)
    most = _within("max_speakers", config.max_speakers) or max(max_speakers, known)
    if known > most:
        raise InvalidRequestError(f"config.num_speakers is {known}, and config.max_speakers {most}")
    if len(config.enrolled) > (known or most):
        raise InvalidRequestError(
            f"config.enrolled has {len(config.enrolled)} people: there are {known or most} at most"
        )
    return Wishes(most, known)


def look_ahead_of(config: pb.DiarizeConfig, default: int) -> int:
    """How much audio behind a position a stream hears before it is decided, in samples.

    Raises:
        InvalidRequestError: It is out of range.

    """
    if not config.HasField("max_latency"):
        return default
    return duration_samples("max_latency", config.max_latency, *_LATENCY_S)


def enrolled_of(config: pb.DiarizeConfig) -> tuple[FloatArray, ...]:
    """Speech of the first speakers.

    Raises:
        InvalidRequestError: It is too short or too long, or holds half a sample.

    """
    low, high = _ENROLLED_S
    for number, pcm in enumerate(config.enrolled, 1):
        half = len(pcm) % BYTES_PER_SAMPLE
        if half or not low <= len(pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE_HZ <= high:
            raise InvalidRequestError(
                f"config.enrolled: speaker {number} has {len(pcm)} bytes, not {low} to {high} s of"
                f" s16le samples"
            )
    return tuple(pcm_to_float(pcm) for pcm in config.enrolled)


def turns_to_proto(turns: Turns) -> pb.DiarizeResponse:
    """Who spoke in a stretch."""
    return pb.DiarizeResponse(
        turns=pb.Turns(
            turns=[
                pb.Turn(
                    speaker=turn.speaker,
                    first_sample=turn.first_sample,
                    end_sample=turn.end_sample,
                    probability=turn.probability,
                )
                for turn in turns.turns
            ],
            first_sample=turns.first_sample,
            through_sample=turns.through_sample,
            settled_sample=turns.settled_sample,
        )
    )


def snapshot_to_proto(snapshot: Snapshot, format_name: str) -> pb.DiarizeResponse:
    """A place to resume from."""
    return pb.DiarizeResponse(
        checkpoint=stage_pb2.Checkpoint(
            format=format_name,
            replay_from_sample=snapshot.replay_from_sample,
            through_sample=snapshot.through_sample,
            state=snapshot.state,
        )
    )


def _within(name: str, value: int) -> int:
    if not 0 <= value <= MAX_SPEAKERS:
        raise InvalidRequestError(f"config.{name} is {value}, not 0 to {MAX_SPEAKERS}")
    return value
