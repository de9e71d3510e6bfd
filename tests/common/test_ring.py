import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.audio import BYTES_PER_SAMPLE
from services.common.ring import Ring


def pcm(first: int, num: int) -> bytes:
    """Samples that say where they belong."""
    return (np.arange(first, first + num) % 32768).astype("<i2").tobytes()


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), max_size=30),
    span=st.tuples(st.integers(0, 1500), st.integers(0, 1500)),
)
def test_it_reads_what_was_appended_and_not_released(
    steps: list[tuple[int, int]], span: tuple[int, int]
) -> None:
    ring = Ring(100)
    for num, release in steps:
        num = min(num, ring.room)
        ring.append(pcm(ring.end_sample, num))
        assert ring.read(ring.first_sample, ring.end_sample) == pcm(
            ring.first_sample, ring.end_sample - ring.first_sample
        )
        ring.release(ring.first_sample + release)
        assert ring.room == 100 - (ring.end_sample - ring.first_sample)
    first, end = sorted(span)
    if ring.first_sample <= first and end <= ring.end_sample:
        assert ring.read(first, end) == pcm(first, end - first)
    else:
        with pytest.raises(IndexError):
            ring.read(first, end)


def test_it_refuses_what_it_has_no_room_for() -> None:
    ring = Ring(10)
    ring.append(pcm(0, 8))
    with pytest.raises(ValueError, match="no room for 3 samples, only for 2"):
        ring.append(pcm(8, 3))
    assert ring.end_sample == 8
    ring.release(1)
    ring.append(pcm(8, 3))
    assert ring.read(1, 11) == pcm(1, 10)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="half a sample"):
        Ring(10).append(b"\0" * 3)


def test_releasing_what_is_not_there_yet_releases_what_is() -> None:
    ring = Ring(10)
    ring.append(pcm(0, 4))
    ring.release(1000)
    assert (ring.first_sample, ring.end_sample) == (4, 4)


def test_releasing_backwards_brings_nothing_back() -> None:
    ring = Ring(10)
    ring.append(pcm(0, 8))
    ring.release(5)
    ring.release(2)
    assert ring.first_sample == 5
    with pytest.raises(IndexError, match=r"\[4, 8\) is not within \[5, 8\)"):
        ring.read(4, 8)


def test_memory_is_freed_block_by_block() -> None:
    ring = Ring(1000)
    for first in range(0, 1000, 100):
        ring.append(pcm(first, 100))
    ring.release(950)
    kept = sum(len(block) for _, block in ring._blocks)
    assert kept == 100 * BYTES_PER_SAMPLE
