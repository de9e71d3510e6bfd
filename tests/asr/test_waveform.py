import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr.waveform import Waveform


def test_an_empty_waveform_is_silence() -> None:
    audio = Waveform()
    assert audio.end_sample is None
    assert audio.read(5, 9).tolist() == [0, 0, 0, 0]
    audio.release(100)
    assert audio.end_sample is None


def holding(*runs: tuple[int, int]) -> Waveform:
    """Runs of (first sample, how many); each sample says where it is."""
    audio = Waveform()
    for first, num in runs:
        audio.append(first, np.arange(first, first + num, dtype=np.float32))
    return audio


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        (10, 13, [10, 11, 12]),
        (8, 12, [0, 0, 10, 11]),
        (12, 15, [12, 13, 14]),
        (14, 22, [14, 0, 0, 0, 0, 0, 20, 21]),
        (21, 26, [21, 22, 0, 0, 0]),
        (16, 19, [0, 0, 0]),
        (11, 11, []),
    ],
)
def test_what_was_left_out_is_silence(first: int, end: int, expected: list[float]) -> None:
    audio = holding((10, 3), (13, 2), (20, 3))
    assert audio.end_sample == 23
    assert audio.read(first, end).tolist() == expected
    assert audio.read(first, end).dtype == np.float32


@given(
    runs=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=8),
    released=st.integers(0, 80),
)
def test_nothing_behind_a_position_is_forgotten_with_it(
    runs: list[tuple[int, int]], released: int
) -> None:
    placed, position = [], 1
    for gap, num in runs:
        placed.append((position + gap, num))
        position += gap + num
    audio, whole = holding(*placed), holding(*placed)
    audio.release(released)
    begin = min(released, position)
    assert audio.read(begin, position).tolist() == whole.read(begin, position).tolist()
    assert audio.end_sample == (position if released < position else None)


@pytest.mark.parametrize(
    ("levels", "until"),
    [
        ([], 0),
        ([0.0] * 5, 0),
        ([0.5] * 5, 5),
        ([0.5, 0.5, 0.0, 0.0, 0.0], 2),
        ([0.5, 0.0, 0.5, 0.0, 0.0], 3),
        ([0.5, 0.5, 0.03, 0.03], 2),  # noise, 24 dB below
        ([0.5, 0.5, 0.05, 0.05], 4),  # 20 dB below
        ([0.03, 0.03], 2),  # somebody whispers
    ],
)
@pytest.mark.parametrize("frames_at_once", [1, 2, 100])
def test_it_is_quiet_behind_the_last_frame_that_is_loud_for_its_window(
    levels: list[float], until: int, frames_at_once: int
) -> None:
    audio, size = Waveform(), 320 * frames_at_once
    sound = np.repeat(np.array(levels, np.float32), 320)
    for first in range(0, len(sound), size):
        audio.append(first, sound[first : first + size])
    assert audio.loud_until == until * 320


def test_the_loudest_of_a_span_is_a_frame_of_it() -> None:
    audio = Waveform()
    audio.append(1000, np.repeat(np.array([0, 0.5, 0.1], np.float32), 320))
    assert audio.loudest(1000, 1000 + 3 * 320) == pytest.approx(320 * 0.25)
    assert audio.loudest(1000 + 2 * 320, 1000 + 3 * 320) == pytest.approx(320 * 0.01)
    assert audio.loudest(1000, 1000 + 320) == audio.loudest(5000, 6000) == 0
    assert audio.loudest(1500, 1500) == 0


@pytest.mark.parametrize(
    ("frames", "resumed"),
    [
        ([1] * 5 + [0] * 8 + [1] * 15, 13),
        ([1] * 5 + [0] * 7 + [1] * 15, None),  # within a word
        ([1] * 5 + [0] * 8 + [1] * 14, None),  # a breath
        ([1] * 5 + [0] * 8 + [1, 0] * 15, 13),
        ([0] * 8 + [1] * 2 + [0] * 8 + [1] * 13, 8),
        ([0] * 30, None),
        ([], None),
    ],
)
def test_sound_resumes_behind_a_pause_if_it_may_be_a_word(
    frames: list[int], resumed: int | None
) -> None:
    audio = Waveform()
    audio.append(1000, np.repeat(np.array([1, *frames], np.float32), 320))
    first, end = 1320, 1320 + 320 * len(frames)
    assert audio.resumes(first, end) == (None if resumed is None else first + 320 * resumed)
    assert audio.resumes(end, first) is None


def test_a_run_of_no_samples_is_no_sound() -> None:
    audio = Waveform()
    audio.append(5, np.zeros(0, np.float32))
    assert audio.loud_until == 0
