"""One round: the texts of a batch of windows, decoded together.

Rows differ in prompt, in length and in position. A row's draft is said at once, behind its prompt,
and believed as far as each of its tokens is the one that would have been chosen; behind another one
it goes on, a few tokens at a time, and what it lacks is chosen one by one. Rows that have ended
leave the batch.
"""

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from services.asr.engines import whisper_row
from services.asr.engines.onnx_decoder import Decoder, Text
from services.asr.engines.whisper_row import choosing, staying
from services.common.audio import FloatArray

Row: TypeAlias = whisper_row.Row[FloatArray]
Vocabulary: TypeAlias = whisper_row.Vocabulary[FloatArray]
Places: TypeAlias = whisper_row.Places[FloatArray]


def decode(decoder: Decoder, vocabulary: Vocabulary, rows: Sequence[Row], text: Text) -> None:
    """Say each row's text, about what was heard; it is written into the row."""
    while not all(row.ended for row in rows):
        if len(left := staying(rows)) < len(rows):
            rows, text = [rows[number] for number in left], text.select(left)
        _pass(decoder, vocabulary, rows, text)


def first_logits(decoder: Decoder, token: int, text: Text) -> FloatArray:
    """What each row would say after one token, of what only heard.  -> (rows, vocabulary)."""
    num_rows = len(text.seen)
    states, _ = decoder.say([[token]] * num_rows, [0] * num_rows, text)
    return decoder.logits(states[:, 0])


def _pass(decoder: Decoder, words: Vocabulary, rows: Sequence[Row], text: Text) -> None:
    """Say what each row has chosen, and a guess, and choose what follows."""
    said = [[*row.chosen, *row.guess] for row in rows]
    before, first_column = [row.num_said for row in rows], text.seen.shape[1]
    states, scores = decoder.say(said, before, text)
    if first_column == 0:
        _judge_speech(decoder, words, rows, states)
    choices = itertools.chain.from_iterable(
        _choose(decoder.logits(states[places.numbers, places.indices]), words, places)
        for places in choosing(rows)
    )
    for number, row in enumerate(rows):
        if not row.ended:
            kept = row.learn([next(choices) for _ in range(len(row.guess) + 1)], eot=words.eot)
            text.forget(number, first_column + kept)
            begin = max(0, row.sot - before[number])
            row.scores.append(scores[number, :, begin:kept, : row.num_frames])


def _judge_speech(
    decoder: Decoder, words: Vocabulary, rows: Sequence[Row], states: FloatArray
) -> None:
    at_sot = decoder.logits(states[range(len(rows)), [row.sot for row in rows]])
    for row, probability in zip(rows, _softmax(at_sot)[:, words.no_speech], strict=True):
        row.no_speech_probability = float(probability)


def _choose(logits: FloatArray, words: Vocabulary, places: Places) -> list[tuple[int, float]]:
    """What is said next, and its log probability among what is text.

    Args:
        logits: (places, vocabulary).
        words: What may be said.
        places: Where.

    """
    allowed = logits + words.barred
    allowed[places.first] += words.barred_first
    tokens = allowed.argmax(-1)
    for index, row in enumerate(places.rows):
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
