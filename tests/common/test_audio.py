import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.common.audio import float_to_pcm, pcm_to_float


def test_samples_lie_between_minus_one_and_one() -> None:
    samples = pcm_to_float(np.array([-32768, 0, 32767], "<i2").tobytes())
    assert samples.dtype == np.float32
    assert samples.tolist() == [-1.0, 0.0, 32767 / 32768]


def test_what_is_too_loud_is_clipped() -> None:
    loud = np.array([-2.0, 2.0, -1.0, 1.0], np.float32)
    assert np.frombuffer(float_to_pcm(loud), "<i2").tolist() == [-32767, 32767, -32767, 32767]


@given(values=st.lists(st.integers(-32768, 32767)))
def test_there_and_back_moves_no_sample_by_more_than_one_step(values: list[int]) -> None:
    there = pcm_to_float(np.array(values, "<i2").tobytes())
    back = np.frombuffer(float_to_pcm(there), "<i2").astype(int)
    assert (np.abs(back - np.array(values, int)) <= 2).all()
