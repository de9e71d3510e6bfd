"""One round: the texts of a batch of windows, decoded together.

Rows differ in prompt, in length and in position. A row's draft is said at once, behind its prompt,
and believed as far as each of its tokens is the one that would have been chosen; what follows is
chosen one by one. Rows that have ended leave the batch.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.asr.engines import whisper_row
from services.asr.engines.onnx_decoder import Decoder, Text
from services.asr.engines.whisper_row import verified_places
from services.common.audio import FloatArray

Row: TypeAlias = whisper_row.Row[FloatArray]
Vocabulary: TypeAlias = whisper_row.Vocabulary[FloatArray]

_LEAVING_SHARE = 0.25
"""Rows that have ended stay until they are so many: to leave means to copy the others."""
_CHOSEN_AT_ONCE = 256
"""Tokens: each takes a row as long as the vocabulary."""


def decode(decoder: Decoder, vocabulary: Vocabulary, rows: Sequence[Row], text: Text) -> None:
    """Say each row's text, about what was heard; it is written into the row."""
    _begin(decoder, vocabulary, rows, text)
    while staying := [number for number, row in enumerate(rows) if not row.ended]:
        if len(rows) - len(staying) >= max(1, _LEAVING_SHARE * len(rows)):
            rows, text = [rows[number] for number in staying], text.select(staying)
        _step(decoder, vocabulary, rows, text)


def first_logits(decoder: Decoder, token: int, text: Text) -> FloatArray:
    """What each row would say after one token, of what only heard.  -> (rows, vocabulary)."""
    num_rows = len(text.seen)
    states, _ = decoder.say([[token]] * num_rows, [0] * num_rows, text)
    return decoder.logits(states[:, 0])


def _begin(decoder: Decoder, words: Vocabulary, rows: Sequence[Row], text: Text) -> None:
    """Say prompts and drafts, and choose what follows."""
    said = [[*row.start, *row.draft] for row in rows]
    states, scores = decoder.say(said, [0] * len(rows), text)
    at_sot = decoder.logits(states[range(len(rows)), [row.sot for row in rows]])
    no_speech = _softmax(at_sot)[:, words.no_speech]
    chosen = iter(_choose_after_drafts(decoder, words, rows, states))
    for number, row in enumerate(rows):
        row.no_speech_probability = float(no_speech[number])
        end = row.verify([next(chosen) for _ in range(len(row.draft) + 1)], eot=words.eot)
        text.forget(number, end)
        row.scores.append(scores[number, :, row.sot : end, : row.num_frames])


def _step(decoder: Decoder, words: Vocabulary, rows: Sequence[Row], text: Text) -> None:
    """Say each row's last token, and choose what follows."""
    positions = [len(row.start) + len(row.tokens) - 1 for row in rows]
    states, scores = decoder.say([row.tokens[-1:] or [0] for row in rows], positions, text)
    choices = _choose(decoder.logits(states[:, 0]), words, rows)
    for number, (row, choice) in enumerate(zip(rows, choices, strict=True)):
        if not row.ended:
            row.scores.append(scores[number, :, :, : row.num_frames])
            row.say(*choice, eot=words.eot)


def _choose_after_drafts(
    decoder: Decoder, words: Vocabulary, rows: Sequence[Row], states: FloatArray
) -> list[tuple[int, float]]:
    """At each of ``verified_places`` what would be said there."""
    places = verified_places(rows)
    chosen: list[tuple[int, float]] = []
    for begin in range(0, len(places), _CHOSEN_AT_ONCE):
        numbers, at = zip(*places[begin : begin + _CHOSEN_AT_ONCE], strict=True)
        asked = [rows[number] for number in numbers]
        logits = decoder.logits(states[list(numbers), list(at)])
        first = [place == len(row.start) - 1 for row, place in zip(asked, at, strict=True)]
        chosen += _choose(logits, words, asked, first)
    return chosen


def _choose(
    logits: FloatArray, words: Vocabulary, rows: Sequence[Row], first: Sequence[bool] | None = None
) -> list[tuple[int, float]]:
    """A token of each row, and its log probability among those of text.

    Args:
        logits: (rows, vocabulary).
        words: What may be said.
        rows: Whose they are.
        first: Which of them stand for the first token of a text; None: none.

    """
    allowed = logits + words.barred
    if first is not None:
        allowed[list(first)] += words.barred_first
    tokens = allowed.argmax(-1)
    for index, row in enumerate(rows):
        if row.temperature > 0:
            tokens[index] = _draw(allowed[index], row)
    texts = logits[:, : words.eot]
    top = texts.max(-1)
    total = top + np.log(np.exp(texts - top[:, None]).sum(-1))
    log_probabilities = logits[np.arange(len(tokens)), tokens] - total
    return list(zip(tokens.tolist(), log_probabilities.tolist(), strict=True))


def _draw(logits: FloatArray, row: Row) -> int:
    """A token by chance, with its probability at the row's temperature."""
    reached = np.cumsum(_softmax(logits.astype(np.float64) / row.temperature))
    # Less than 1 also when multiplied, so that there is a token that reaches it.
    wanted = row.chance.random() * (1 - 1e-9) * reached[-1]
    return int(np.searchsorted(reached, wanted, side="right"))


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))
