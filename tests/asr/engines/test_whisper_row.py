import numpy as np
import pytest

from services.asr.engines.whisper_row import Row
from services.common.audio import FloatArray

EOT = 99


def row(*draft: int, limit: int = 10) -> Row[FloatArray]:
    return Row(start=[50, 51, 52], sot=0, draft=draft, limit=limit, num_frames=5)


@pytest.mark.parametrize(
    ("draft", "chosen", "tokens", "num_stay", "ended"),
    [
        # Without a draft a token is chosen; nothing but the start was said.
        ((), [7], [7], 3, False),
        ((), [EOT], [], 3, True),
        # All of it is right, and more follows, or nothing.
        ((7, 8), [7, 8, 9], [7, 8, 9], 5, False),
        ((7, 8), [7, 8, EOT], [7, 8], 5, True),
        # What was chosen in its place is not said yet.
        ((7, 8), [1, 8, 9], [1], 3, False),
        ((7, 8), [7, 1, 9], [7, 1], 4, False),
        ((7, 8), [7, EOT, 9], [7], 4, True),
        ((7, 8), [EOT, 8, 9], [], 3, True),
    ],
)
def test_a_draft_is_believed_as_far_as_it_would_have_been_said(
    draft: tuple[int, ...], chosen: list[int], tokens: list[int], num_stay: int, ended: bool
) -> None:
    said = row(*draft)
    choices = [(token, -float(number)) for number, token in enumerate(chosen)]
    assert said.learn(choices, eot=EOT) == num_stay
    assert said.tokens == tokens
    assert said.log_probabilities == [-float(number) for number in range(len(tokens))]
    assert said.ended is ended


@pytest.mark.parametrize(
    ("draft", "chosen", "guess"),
    [
        # Another word in the place of one, of two, of none; and one that was left out.
        ((7, 8, 9, 10), [[1]], [8, 9, 10]),
        ((7, 8, 9, 10), [[1], [9]], [10]),
        ((7, 8, 9, 10), [[1], [7]], [8, 9, 10]),
        ((7, 8, 9, 10), [[8]], [9, 10]),
        # What is said twice is looked for near by.
        ((7, 8, 7, 9), [[7, 8, 1]], [9]),
        ((7, 1, 1, 1, 1, 1, 7, 9), [[2], [7]], [1, 1, 1, 1, 1, 7, 9]),
        # Once it has been wrong, little of it is said at a time, and nothing behind its end.
        (tuple(range(20)), [[50]], list(range(1, 9))),
        ((7,), [[1]], []),
    ],
)
def test_behind_another_word_the_draft_goes_on(
    draft: tuple[int, ...], chosen: list[list[int]], guess: list[int]
) -> None:
    said = row(*draft, limit=20)
    for tokens in chosen:
        lacking = len(said.guess) + 1 - len(tokens)
        said.learn([(token, 0.0) for token in [*tokens, *[EOT] * lacking]], eot=EOT)
    assert (said.chosen, list(said.guess)) == ([chosen[-1][-1]], guess)


def test_a_guess_does_not_reach_beyond_the_limit() -> None:
    said = row(7, 8, 9, limit=2)
    assert list(said.guess) == [7, 8]
    said.learn([(1, 0.0), (8, 0.0), (9, 0.0)], eot=EOT)
    assert list(said.guess) == [8]


def test_a_text_ends_at_its_limit() -> None:
    said = row(7, 8, limit=2)
    assert said.learn([(7, 0.0), (8, 0.0), (9, 0.0)], eot=EOT) == 5
    assert (said.tokens, said.ended) == ([7, 8], True)


def test_rows_share_nothing() -> None:
    one, other = row(), row()
    one.learn([(7, 0.0)], eot=EOT)
    one.scores.append(np.zeros((1, 1, 1), np.float32))
    assert (other.tokens, other.log_probabilities, other.scores) == ([], [], [])
