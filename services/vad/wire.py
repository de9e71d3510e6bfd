"""Protos <-> the domain: what clients ask for, checked, and what they are told."""

from services.common.errors import InvalidRequestError
from services.common.wire import duration_samples
from services.vad.endpointer import Endpointing, Event, Heard, SpeechStarted
from services.vad.stream import Snapshot
from voxmesh.common.v1 import stage_pb2
from voxmesh.vad.v1 import vad_pb2 as pb


def endpointing_of(config: pb.DetectConfig, defaults: Endpointing) -> Endpointing:
    """What a stream asks for. An offset threshold that it leaves out follows its onset down.

    Raises:
        InvalidRequestError: A setting is out of range; the message names it.

    """
    onset, offset = defaults.onset_threshold, defaults.offset_threshold
    if config.HasField("onset_threshold"):
        onset = _within("onset_threshold", config.onset_threshold, 0.05, 0.95)
        offset = min(offset, onset)
    if config.HasField("offset_threshold"):
        offset = _within("offset_threshold", config.offset_threshold, 0.01, onset)
    min_speech, hangover = defaults.min_speech, defaults.hangover
    max_speech = defaults.max_speech
    if config.HasField("min_speech"):
        min_speech = duration_samples("min_speech", config.min_speech, 0, 2)
    if config.HasField("hangover"):
        hangover = duration_samples("hangover", config.hangover, 0.032, 10)
    if config.HasField("max_speech"):
        max_speech = duration_samples("max_speech", config.max_speech, 5, 1e9)
    return Endpointing(onset, offset, min_speech, hangover, max_speech)


def event_to_proto(event: Event) -> pb.DetectResponse:
    """A start or an end of speech."""
    if isinstance(event, SpeechStarted):
        return pb.DetectResponse(started=pb.SpeechStarted(first_sample=event.first_sample))
    return pb.DetectResponse(ended=pb.SpeechEnded(end_sample=event.end_sample))


def heard_to_proto(heard: Heard) -> pb.DetectResponse:
    """How far the audio has been heard."""
    return pb.DetectResponse(
        heard=pb.Heard(
            through_sample=heard.through_sample,
            settled_through_sample=heard.settled_through_sample,
            speaking=heard.speaking,
            probability=heard.probability,
        )
    )


def snapshot_to_proto(snapshot: Snapshot, format_name: str) -> pb.DetectResponse:
    """A place to resume from. It lies between two windows, so nothing needs to be rebuilt."""
    return pb.DetectResponse(
        checkpoint=stage_pb2.Checkpoint(
            format=format_name,
            replay_from_sample=snapshot.through_sample,
            through_sample=snapshot.through_sample,
            state=snapshot.state,
        )
    )


def _within(name: str, value: float, low: float, high: float) -> float:
    # The wire has 32 bits: 0.01 arrives as 0.0099999998.
    rounded = round(value, 6)
    if not low <= rounded <= high:
        raise InvalidRequestError(f"config.{name} is {rounded:g}, not {low:g} to {high:g}")
    return rounded
