import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.common.audio import FloatArray
from services.diarizer.turns import Turn, turns_of


@pytest.mark.parametrize(
    ("activity", "expected"),
    [
        ([], []),
        ([[], []], []),
        ([[0], [0]], []),
        ([[0.5], [0.75]], [Turn(1, 0, 20, 0.625)]),
        ([[0], [0.5], [0]], [Turn(1, 10, 20, 0.5)]),
        ([[0.5], [0], [1]], [Turn(1, 0, 10, 0.5), Turn(1, 20, 30, 1.0)]),
        ([[0, 1], [1, 0]], [Turn(2, 0, 10, 1.0), Turn(1, 10, 20, 1.0)]),
        ([[1, 1], [1, 0]], [Turn(1, 0, 20, 1.0), Turn(2, 0, 10, 1.0)]),
        ([[1, 0], [1, 1], [0, 1]], [Turn(1, 0, 20, 1.0), Turn(2, 10, 30, 1.0)]),
    ],
)
def test_a_turn_is_a_run_of_frames_of_one_speaker(
    activity: list[list[float]], expected: list[Turn]
) -> None:
    edges = np.arange(len(activity) + 1) * 10
    frames = np.array(activity, np.float32).reshape(len(activity), -1 if activity else 0)
    assert turns_of(frames, edges) == expected


@given(
    activity=arrays(np.float32, (12, 3), elements=st.sampled_from([0, 0.5, 1])),
    sizes=st.lists(st.integers(0, 5), min_size=12, max_size=12),
)
def test_turns_cover_what_is_active_and_nothing_else(
    activity: FloatArray, sizes: list[int]
) -> None:
    edges = np.cumsum([0, *sizes])
    turns = turns_of(activity, edges)
    for speaker in range(3):
        expected = np.repeat(activity[:, speaker] > 0, sizes)
        spoken = np.zeros(edges[-1], int)
        for turn in turns:
            if turn.speaker == speaker + 1:
                spoken[turn.first_sample : turn.end_sample] += 1
                assert turn.first_sample < turn.end_sample
                assert 0 < turn.probability <= 1
        assert (spoken == expected).all()
    order = [(turn.first_sample, turn.speaker) for turn in turns]
    assert order == sorted(order)
