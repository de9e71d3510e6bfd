import numpy as np
import pytest

from services.common.errors import CheckpointError, InvalidRequestError
from services.common.wire import (
    MAX_FRAME_SAMPLES,
    MAX_POSITION,
    first_sample_of,
    gap_samples_of,
    samples_of,
    state_of,
)
from voxmesh.common.v1 import audio_pb2, stage_pb2


@pytest.mark.parametrize("first_sample", [0, 1, MAX_POSITION - 1])
@pytest.mark.parametrize("resumed", [False, True])
def test_a_stream_starts_anywhere_on_the_clock(first_sample: int, resumed: bool) -> None:
    checkpoint = stage_pb2.Checkpoint(replay_from_sample=first_sample) if resumed else None
    assert first_sample_of(first_sample, checkpoint) == first_sample


@pytest.mark.parametrize(
    ("first_sample", "replay_from", "reason"),
    [
        (-1, None, "open.first_sample is -1: not a position"),
        (MAX_POSITION, None, "not a position"),
        (-1, -1, "not a position"),
        (5, 6, "open.first_sample is 5, but the checkpoint goes on from 6"),
        (0, 1, "goes on from 1"),
    ],
)
def test_a_stream_that_starts_elsewhere_is_refused(
    first_sample: int, replay_from: int | None, reason: str
) -> None:
    checkpoint = None
    if replay_from is not None:
        checkpoint = stage_pb2.Checkpoint(replay_from_sample=replay_from)
    with pytest.raises(InvalidRequestError, match=reason):
        first_sample_of(first_sample, checkpoint)


def test_only_the_engine_that_wrote_a_state_reads_it() -> None:
    checkpoint = stage_pb2.Checkpoint(format="engine/2", state=b"state")
    assert state_of(None, "engine/2") is None
    assert state_of(checkpoint, "engine/2") == b"state"
    for other in ("engine/1", "engine/22", "other/2", ""):
        with pytest.raises(CheckpointError, match=f"'engine/2'; this replica reads '{other}'"):
            state_of(checkpoint, other)


def test_samples_are_little_endian_and_full_scale_is_one() -> None:
    heard = samples_of(audio_pb2.AudioFrame(pcm=b"\x00\x00\x00\x40\x00\x80\xff\x7f"))
    assert heard.dtype == np.float32
    assert heard.tolist() == [0, 0.5, -1, 32767 / 32768]


@pytest.mark.parametrize(
    ("num_bytes", "reason"),
    [
        (0, f"has 0 samples, not 1 to {MAX_FRAME_SAMPLES}"),
        (1, "has 1 bytes: half a sample"),
        (2 * MAX_FRAME_SAMPLES + 1, "half a sample"),
        (2 * MAX_FRAME_SAMPLES + 2, f"has {MAX_FRAME_SAMPLES + 1} samples"),
    ],
)
def test_a_message_of_audio_that_makes_no_sense_is_refused(num_bytes: int, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        samples_of(audio_pb2.AudioFrame(pcm=bytes(num_bytes)))


@pytest.mark.parametrize("num_bytes", [2, 2 * MAX_FRAME_SAMPLES])
def test_a_message_holds_up_to_ten_seconds(num_bytes: int) -> None:
    assert len(samples_of(audio_pb2.AudioFrame(pcm=bytes(num_bytes)))) == num_bytes // 2


@pytest.mark.parametrize(
    ("first_sample", "num_samples"), [(0, 1), (0, MAX_POSITION), (MAX_POSITION - 1, 1)]
)
def test_a_gap_may_reach_to_the_end_of_the_clock(first_sample: int, num_samples: int) -> None:
    gap = audio_pb2.Gap(first_sample=first_sample, num_samples=num_samples)
    assert gap_samples_of(gap) == num_samples


@pytest.mark.parametrize(
    ("first_sample", "num_samples", "reason"),
    [
        (0, 0, "gap.num_samples is 0, not at least 1"),
        (9, -1, "gap.num_samples is -1"),
        (1, MAX_POSITION, f"gap goes beyond position {MAX_POSITION}"),
        (0, 1 << 62, "beyond"),
        (MAX_POSITION, 1, "beyond"),
    ],
)
def test_a_gap_of_nothing_or_beyond_the_clock_is_refused(
    first_sample: int, num_samples: int, reason: str
) -> None:
    gap = audio_pb2.Gap(first_sample=first_sample, num_samples=num_samples)
    with pytest.raises(InvalidRequestError, match=reason):
        gap_samples_of(gap)
