"""Tokens and the frames where they start, as words on the lane's clock."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.asr.engines.whisper_window import FRAME_SAMPLES
from services.asr.recognizer import Window
from services.common.words import Word

# Whisper's own lists: punctuation that is written before, and behind, a word.
_OPENING = tuple("\"'“¿([{-")
_CLOSING = (*"\"'.。,，!！?？:：;”)]}、…", "...")  # noqa: RUF001 -- full-width is meant
_PART = "\ufffd"
"""What a character becomes that the limit on tokens cut in two."""


def timed_words(
    window: Window,
    split: Sequence[tuple[str, int]],
    tokens: Sequence[int],
    frames: NDArray[np.int64],
    probabilities: Sequence[float],
) -> tuple[Word, ...]:
    """The words that a window says.

    Args:
        window: Where they were said.
        split: Each word's text and the index after its last token.
        tokens: (n,) all tokens.
        frames: (n + 1,) the encoder frame at which each token starts, and the last one ends.
        probabilities: (n,) of each token.

    """
    window_end = window.first_sample + len(window.samples)
    # Before the first frame there is nothing, whatever a path through very few frames says.
    places = window.first_sample + np.maximum(0, frames) * FRAME_SAMPLES
    words: list[Word] = []
    for text, begin, spoken, after in _written(split):
        first = min(int(places[begin]), window_end - 1)
        last = min(int(places[spoken]), window_end)
        words.append(
            Word(
                text=text,
                first_sample=first,
                end_sample=max(first + 1, last),
                probability=float(np.mean(probabilities[begin:after])),
                token_ids=tuple(tokens[begin:after]),
            )
        )
    return tuple(words)


def _written(split: Sequence[tuple[str, int]]) -> list[tuple[str, int, int, int]]:
    """Join punctuation to the word that it belongs to.

    Returns:
        Each word's text, its first token, the token after what is spoken of it, and the one after
        all of it.

    """
    joined: list[tuple[str, int, int, int]] = []
    opening: tuple[str, int] | None = None
    begin = 0
    for text, after in split:
        first = begin
        if opening is not None:
            text, first, opening = opening[0] + text, opening[1], None
        if text.strip() in _OPENING and text.startswith(" "):
            opening = text, first
        elif joined and text in _CLOSING:
            before, from_token, spoken, _ = joined[-1]
            joined[-1] = before + text, from_token, spoken, after
        elif text.strip() and _PART not in text:
            joined.append((text, first, after, after))
        begin = after
    return joined
