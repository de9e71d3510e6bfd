from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.vad.detector import WINDOW_SAMPLES as W
from services.vad.framing import Framer, Piece, Silence, Windows

RAMP = np.arange(1, 8001, dtype=np.float32)


def windows_of(pieces: list[Piece]) -> list[tuple[float, ...]]:
    """One entry per window; ``()`` for one that lies in a gap."""
    windows: list[tuple[float, ...]] = []
    for piece in pieces:
        if isinstance(piece, Windows):
            windows += [tuple(window) for window in piece.samples]
        else:
            windows += [()] * piece.num_windows
    return windows


@given(
    parts=st.lists(st.tuples(st.booleans(), st.integers(1, 2000)), max_size=6),
    cuts=st.lists(st.integers(0, 8000), max_size=8),
)
def test_windows_do_not_depend_on_how_audio_and_gaps_were_cut(
    parts: list[tuple[bool, int]], cuts: list[int]
) -> None:
    whole, pieces = Framer(0), Framer(0)
    expected: list[Piece] = []
    found: list[Piece] = []
    position = 0
    for is_gap, num_samples in parts:
        end = position + num_samples
        inner = sorted({position, end, *(c for c in cuts if position < c < end)})
        samples = np.resize(RAMP, num_samples)
        expected += whole.skip(num_samples) if is_gap else whole.take(samples)
        for first, last in pairwise(inner):
            if is_gap:
                found += pieces.skip(last - first)
            else:
                found += pieces.take(samples[first - position : last - position])
        position = end
    assert windows_of(found) == windows_of(expected)
    assert pieces.end_sample == whole.end_sample == position
    assert len(windows_of(found)) == position // W
    assert pieces.partial_samples == position % W


def test_a_gap_fills_a_window_with_zeros_and_then_leaves_whole_ones_out() -> None:
    framer = Framer(0)
    assert framer.take(RAMP[:500]) == []
    [first, silence] = framer.skip(12 + 3 * W + 7)
    assert isinstance(first, Windows)
    assert first.samples[0, 499] == 500
    assert not first.samples[0, 500:].any()
    assert silence == Silence(3)
    [last] = framer.take(RAMP[: W - 7])
    assert isinstance(last, Windows)
    assert not last.samples[0, :7].any()
    assert last.samples[0, 7] == 1


def test_the_partial_window_is_padded_with_zeros_and_stays() -> None:
    framer = Framer(0)
    framer.take(RAMP[:100])
    partial = framer.partial
    assert partial is not None
    assert partial.shape == (W,)
    assert partial[99] == 100
    assert not partial[100:].any()
    [whole] = framer.take(RAMP[100:W])
    assert isinstance(whole, Windows)
    assert (whole.samples[0] == RAMP[:W]).all()


def test_a_partial_window_without_audio_needs_no_model() -> None:
    framer = Framer(0)
    framer.skip(W + 5)
    assert framer.partial is None
    assert framer.partial_samples == 5
    framer.take(RAMP[:1])
    assert framer.partial is not None
