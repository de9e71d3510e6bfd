import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from services.common.errors import InvalidRequestError
from services.common.timeline import SAMPLE_RATE_HZ
from services.diarizer import wire
from services.diarizer.diarizer import Wishes
from services.diarizer.stream import Snapshot, Turns
from services.diarizer.turns import Turn
from voxmesh.common.v1 import stage_pb2
from voxmesh.diarizer.v1 import diarizer_pb2 as pb

SECOND = bytes(2 * SAMPLE_RATE_HZ)


@pytest.mark.parametrize(
    ("config", "wishes"),
    [
        (pb.DiarizeConfig(), Wishes(20)),
        (pb.DiarizeConfig(max_speakers=3), Wishes(3)),
        (pb.DiarizeConfig(max_speakers=60), Wishes(60)),
        (pb.DiarizeConfig(num_speakers=2), Wishes(20, 2)),
        (pb.DiarizeConfig(num_speakers=30), Wishes(30, 30)),
        (pb.DiarizeConfig(num_speakers=2, max_speakers=2), Wishes(2, 2)),
        (pb.DiarizeConfig(max_speakers=2, enrolled=[SECOND, SECOND]), Wishes(2)),
    ],
)
def test_what_is_known_of_the_speakers_is_what_was_said(
    config: pb.DiarizeConfig, wishes: Wishes
) -> None:
    assert wire.wishes_of(config, 20) == wishes


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (pb.DiarizeConfig(max_speakers=-1), "max_speakers is -1, not 0 to 60"),
        (pb.DiarizeConfig(max_speakers=61), "max_speakers is 61"),
        (pb.DiarizeConfig(num_speakers=61), "num_speakers is 61"),
        (pb.DiarizeConfig(num_speakers=3, max_speakers=2), "is 3, and config.max_speakers 2"),
        (pb.DiarizeConfig(max_speakers=1, enrolled=[b"", b""]), "2 people: there are 1 at most"),
        (pb.DiarizeConfig(num_speakers=1, enrolled=[b"", b""]), "2 people: there are 1 at most"),
    ],
)
def test_speakers_that_there_cannot_be_are_refused(config: pb.DiarizeConfig, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        wire.wishes_of(config, 20)


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (None, 16_000),
        (Duration(nanos=200_000_000), 3200),
        (Duration(seconds=1, nanos=500_000_000), 24_000),
        (Duration(seconds=5), 80_000),
    ],
)
def test_the_look_ahead_is_the_latency_that_a_stream_asks_for(
    latency: Duration | None, expected: int
) -> None:
    assert wire.look_ahead_of(pb.DiarizeConfig(max_latency=latency), 16_000) == expected


@pytest.mark.parametrize(
    "latency",
    [Duration(), Duration(seconds=-1), Duration(nanos=199_999_999), Duration(seconds=5, nanos=1)],
)
def test_a_latency_out_of_range_is_refused(latency: Duration) -> None:
    with pytest.raises(InvalidRequestError, match=r"max_latency is .* s, not 0\.2 to 5 s"):
        wire.look_ahead_of(pb.DiarizeConfig(max_latency=latency), 16_000)


def test_enrolled_speech_is_taken_as_it_is() -> None:
    pcm = np.arange(-SAMPLE_RATE_HZ, SAMPLE_RATE_HZ, dtype="<i2")
    found = wire.enrolled_of(pb.DiarizeConfig(enrolled=[SECOND, pcm.tobytes()]))
    assert [len(clip) for clip in found] == [16_000, 32_000]
    assert not found[0].any()
    assert (found[1] * 32768 == pcm).all()


@pytest.mark.parametrize("clip", [b"", SECOND[:-2], SECOND + b"\0", SECOND * 30 + b"\0\0"])
def test_enrolled_speech_too_short_too_long_or_torn_is_refused(clip: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=f"speaker 2 has {len(clip)} bytes, not 1 to 30"):
        wire.enrolled_of(pb.DiarizeConfig(enrolled=[SECOND, clip]))


def test_everything_that_was_found_is_said() -> None:
    found = Turns((Turn(2, 5, 9, 0.5), Turn(1, 7, 8, 0.75)), 4, 12, 8)
    assert wire.turns_to_proto(found).turns == pb.Turns(
        turns=[
            pb.Turn(speaker=2, first_sample=5, end_sample=9, probability=0.5),
            pb.Turn(speaker=1, first_sample=7, end_sample=8, probability=0.75),
        ],
        first_sample=4,
        through_sample=12,
        settled_sample=8,
    )
    assert wire.snapshot_to_proto(Snapshot(3, 9, b"state"), "a/1").checkpoint == (
        stage_pb2.Checkpoint(format="a/1", replay_from_sample=3, through_sample=9, state=b"state")
    )
