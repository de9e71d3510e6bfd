"""When each token was said: dynamic time warping over cross-attention.

Source: openai/whisper, ``timing.py``. Attention is normalised over the tokens, smoothed over the
frames by a median, averaged over the heads; the path through it that gathers most of it, and never
goes back, says where each token starts.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

MEDIAN_WIDTH = 7
# Paeth, "Median finding on a 3x3 grid", Graphics Gems, 1990: after these exchanges the middle one
# of seven is the median. Several times faster than sorting.
_EXCHANGES = (
    *((0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6)),
    *((2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)),
)

Values = TypeVar("Values")


def token_frames(scores: NDArray[np.float32], num_before: int) -> NDArray[np.int64]:
    """Where each token starts.

    Args:
        scores: (heads, num_before + n, frames), attention before softmax: of the tokens that start
            the text, and of the n tokens of it.
        num_before: Of the tokens that start the text; at least one.

    Returns:
        (n + 1,) the frame at which each token starts; and the one at which the last one ends.

    """
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    # Where all tokens look alike there is nothing to tell them apart by.
    deviation = np.maximum(weights.std(-2, keepdims=True), 1e-10)
    weights = _median((weights - weights.mean(-2, keepdims=True)) / deviation)
    return path_starts(-weights.mean(0)[num_before - 1 :].astype(np.float64))


def _median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The median of each value and the three on either side of it, along the last dimension."""
    around, length = MEDIAN_WIDTH // 2, values.shape[-1]
    if length <= around:
        return values
    padded = np.pad(values, ((0, 0), (0, 0), (around, around)), mode="reflect")
    shifted = [padded[..., n : n + length] for n in range(MEDIAN_WIDTH)]
    return median_of_seven(shifted, np.minimum, np.maximum)


def median_of_seven(
    values: Sequence[Values],
    minimum: Callable[[Values, Values], Values],
    maximum: Callable[[Values, Values], Values],
) -> Values:
    """Of seven arrays the middle one, element by element."""
    found = list(values)
    for low, high in _EXCHANGES:
        pair = found[low], found[high]
        found[low], found[high] = minimum(*pair), maximum(*pair)
    return found[len(found) // 2]


def path_starts(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cheapest monotone path from the first to the last corner of a matrix.

    It goes one row on, one column on, or both. Row by row: the cost of reaching a column is the
    least, over the columns at which the row may be entered, of the cost before it and of the way
    along the row; a running minimum over differences of sums.

    Args:
        costs: (rows, columns).

    Returns:
        (rows,) the column at which the path enters each row.

    """
    num_rows, num_columns = costs.shape
    columns = np.arange(num_columns)
    entered = np.empty(costs.shape, np.int64)
    reached = np.empty((num_rows, num_columns + 1))
    reached[:, 0] = np.inf
    before = np.full(num_columns, np.inf)
    before[0] = 0.0
    for row in range(num_rows):
        along = np.cumsum(costs[row])
        entering = before - along + costs[row]
        least = np.minimum.accumulate(entering)
        lower = np.empty(num_columns, bool)
        lower[0] = True
        lower[1:] = entering[1:] < least[:-1]
        entered[row] = np.maximum.accumulate(np.where(lower, columns, 0))
        reached[row, 1:] = along + least
        before = np.minimum(reached[row, :-1], reached[row, 1:])
    starts = np.empty(num_rows, np.int64)
    column = num_columns - 1
    for row in range(num_rows - 1, -1, -1):
        column = starts[row] = entered[row, column]
        if row and reached[row - 1, column] < reached[row - 1, column + 1]:
            column -= 1
    return starts
