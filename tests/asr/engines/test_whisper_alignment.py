import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.asr.engines import torch_alignment
from services.asr.engines.whisper_alignment import median_of_seven, path_starts, token_frames


def plain_path_starts(costs: NDArray[np.float64]) -> list[int]:
    """Dynamic time warping as it is written in books."""
    num_rows, num_columns = costs.shape
    reached = np.full((num_rows + 1, num_columns + 1), np.inf)
    reached[0, 0] = 0
    for row in range(num_rows):
        for column in range(num_columns):
            before = reached[row, column], reached[row, column + 1], reached[row + 1, column]
            reached[row + 1, column + 1] = costs[row, column] + min(before)
    starts = [0] * num_rows
    row, column = num_rows, num_columns
    while row:
        starts[row - 1] = column - 1
        steps = (row - 1, column - 1), (row - 1, column), (row, column - 1)
        row, column = min(steps, key=lambda place: reached[place])
    return starts


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 50), (50, 3), (20, 20), (30, 120)]
)
def test_the_path_is_that_of_the_textbook(shape: tuple[int, int]) -> None:
    for seed in range(5):
        costs = np.random.default_rng(seed).normal(size=shape)
        assert path_starts(costs).tolist() == plain_path_starts(costs)


def test_the_median_of_seven_is_the_middle_one_of_them_in_order() -> None:
    values = np.random.default_rng(0).normal(size=(7, 1000))
    found = median_of_seven(list(values), np.minimum, np.maximum)
    assert np.array_equal(found, np.median(values, axis=0))


def attention(starts: list[int], num_frames: int) -> NDArray[np.float32]:
    """Two heads, each token looking at all frames until the next one starts; a third at none."""
    scores = np.zeros((3, len(starts) + 1, num_frames), np.float32)
    ends = [*starts[1:], num_frames]
    for token, (first, end) in enumerate(zip(starts, ends, strict=True)):
        # The start of the text, at 0, looks nowhere in particular.
        scores[:2, token + 1, first:end] = 6.0
    return scores


def test_tokens_start_where_attention_turns_to_them() -> None:
    starts = [0, 20, 40, 70, 85]
    found = token_frames(attention(starts, 100), num_before=2)
    assert found == pytest.approx(starts, abs=2)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4])
def test_words_in_next_to_no_sound_have_a_place_too(num_frames: int) -> None:
    found = token_frames(np.zeros((2, 9, num_frames), np.float32), num_before=2)
    assert len(found) == 8
    assert all(0 <= frame < num_frames for frame in found)


@pytest.mark.parametrize("num_frames", [1, 3, 4, 9, 400])
def test_on_a_device_tokens_start_at_the_same_places(num_frames: int) -> None:
    scores = np.random.default_rng(1).normal(0, 2, (5, 30, num_frames)).astype(np.float32)
    found = torch_alignment.token_frames(torch.from_numpy(scores), 4)
    assert found.tolist() == token_frames(scores, 4).tolist()
