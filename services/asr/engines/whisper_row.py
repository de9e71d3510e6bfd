"""A window's text while it is said: what engines that choose their own tokens have in common."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.asr.engines.whisper_tokens import WhisperTokens
from services.asr.engines.whisper_window import TEXT_POSITIONS, align_mel_frames, max_tokens
from services.asr.engines.whisper_words import timed_words
from services.asr.recognizer import Hypothesis, Window
from services.common.audio import FloatArray
from services.common.models import ModelError
from services.common.timeline import samples

ArrayT = TypeVar("ArrayT")
"""The engine's: numpy's or torch's."""

_SHORT_SAMPLES = samples(8.0)
_GUESSED_AT_ONCE = 8
"""Tokens of a draft that are said once it has been wrong: fewer are lost if it is so again."""
_ASTRAY = 4
"""Tokens of a draft to either side, among which what was said instead may be found."""
_CHOSEN_AT_ONCE = 256
"""Tokens: each takes a row as long as the vocabulary."""
_LEAVING_SHARE = 0.25
"""Rows that have ended stay until they are so many: to leave means to copy the others."""


@dataclass(slots=True)
class Row(Generic[ArrayT]):
    """A window's text: how it begins, and what has been said."""

    start: Sequence[int]
    """Prompt, if any, and the tokens that start a text."""
    sot: int
    """Index of start-of-transcript in it."""
    draft: Sequence[int]
    """Tokens that may well be said."""
    limit: int
    """Tokens it may say."""
    num_frames: int
    """Encoder frames in which its words lie: the sound without the pad."""
    temperature: float = 0.0
    chance: np.random.Generator = field(default_factory=np.random.default_rng)
    """Draws its tokens, if it has a temperature."""
    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    """Of each token among those of text."""
    num_said: int = 0
    """Tokens, those that start the text included, that a pass has said and that stay."""
    no_speech_probability: float = 0.0
    scores: list[ArrayT] = field(default_factory=list)
    """(heads, tokens, frames) float32 each: what the alignment heads looked at, before softmax,
    at every token from start-of-transcript on."""
    ended: bool = False
    _place: int = 0
    """Index into the draft of what is likely to come next."""

    @property
    def guess(self) -> Sequence[int]:
        """Tokens of the draft to say in the next pass, behind those that are chosen."""
        most = self.limit if self.num_said == 0 else _GUESSED_AT_ONCE
        most = min(most, self.limit - len(self.tokens))
        return () if self.ended else self.draft[self._place : self._place + most]

    @property
    def chosen(self) -> list[int]:
        """Tokens that the next pass has to say: the start of the text, then its newest token."""
        text = [*self.start, *self.tokens]
        return text[-1:] if self.ended else text[self.num_said :]

    def learn(self, choices: Sequence[tuple[int, float]], *, eot: int) -> int:
        """Add what was chosen in a pass, as far as its guess was right.

        Args:
            choices: Token and log probability: behind the chosen tokens, and behind each of the
                guess.
            eot: Ends a text.

        Returns:
            How many of the tokens that the pass has said stay.

        """
        before, guess = self.num_said, [*self.guess, None]
        self.num_said += len(self.chosen)
        for guessed, (token, log_probability) in zip(guess, choices, strict=True):
            self._say(token, log_probability, eot=eot)
            if self.ended or token != guessed:
                break
            self.num_said += 1
        return self.num_said - before

    def _say(self, token: int, log_probability: float, *, eot: int) -> None:
        """Add a token that was chosen, unless it or the limit ends the text."""
        if token == eot or len(self.tokens) == self.limit:
            self.ended = True
            return
        self.tokens.append(token)
        self.log_probabilities.append(log_probability)
        # What was heard otherwise now is mostly a word or two: the draft goes on behind them.
        first, last = max(0, self._place - _ASTRAY), self._place + _ASTRAY + 1
        near = enumerate(self.draft[first:last], start=first)
        found = [place for place, drafted in near if drafted == token]
        nearest = min(found, key=lambda place: abs(place - self._place), default=self._place)
        self._place = nearest + 1


@dataclass(frozen=True, slots=True)
class Vocabulary(Generic[ArrayT]):
    """Which tokens may be said."""

    eot: int
    """Ends a text. Above it there is no text."""
    no_speech: int
    barred: ArrayT
    """(vocabulary,) float32, 0 or minus infinity."""
    barred_first: ArrayT
    """The same for the first token of a text."""


def vocabulary_of(tokens: WhisperTokens, num_vocab: int) -> Vocabulary[FloatArray]:
    """Text, and its end; but nothing that stands for no speech.

    Raises:
        ModelError: The tokenizer is of a model with more tokens.

    """
    if tokens.no_speech >= num_vocab:
        raise ModelError(f"the tokenizer has more tokens than the model, which has {num_vocab}")
    barred = np.zeros(num_vocab, np.float32)
    # Above the end of a text there are languages, tasks and times: no text.
    barred[tokens.eot + 1 :] = -np.inf
    barred[list(tokens.unspoken())] = -np.inf
    first = np.zeros(num_vocab, np.float32)
    first[list(tokens.blank())] = -np.inf
    return Vocabulary(tokens.eot, tokens.no_speech, barred, first)


def row_of(window: Window, language_code: str, tokens: WhisperTokens) -> Row[ArrayT]:
    """A window's text before anything is said."""
    before = tokens.prompt(window.prompt)
    start = [*before, *tokens.start(language_code, window.task)]
    limit = min(max_tokens(window), TEXT_POSITIONS - len(start))
    return Row(
        start=start,
        sot=len(before),
        draft=draft_of(window, tokens)[:limit],
        limit=limit,
        num_frames=align_mel_frames(window) // 2,
        temperature=window.temperature,
        # The same window says the same, whatever is decoded beside it.
        chance=np.random.default_rng((window.first_sample, len(window.samples))),
    )


def draft_of(window: Window, tokens: WhisperTokens) -> list[int]:
    """As much of the draft as is text; nothing where chance decides."""
    if window.temperature > 0:
        return []
    end = next(
        (n for n, token in enumerate(window.draft) if not 0 <= token < tokens.eot),
        len(window.draft),
    )
    return list(window.draft[:end])


def takes_few_passes(window: Window, tokens: WhisperTokens) -> bool:
    """Whether little is left to say token by token; a batch takes as long as its slowest row."""
    return len(window.samples) <= _SHORT_SAMPLES or bool(draft_of(window, tokens))


@dataclass(frozen=True, slots=True)
class Places(Generic[ArrayT]):
    """Where in a pass what comes next is chosen, one entry for each choice."""

    rows: Sequence[Row[ArrayT]]
    """Whose text goes on."""
    numbers: list[int]
    """Theirs in the batch."""
    indices: list[int]
    """Into what the row says in the pass: of the token behind which is chosen."""
    first: list[bool]
    """Whether it is the first token of the row's text that is chosen."""


def choosing(rows: Sequence[Row[ArrayT]]) -> Iterator[Places[ArrayT]]:
    """All places of a pass, as many at once as may take a row of the vocabulary's length each."""
    places = [
        (number, len(row.chosen) - 1 + place)
        for number, row in enumerate(rows)
        if not row.ended
        for place in range(len(row.guess) + 1)
    ]
    for begin in range(0, len(places), _CHOSEN_AT_ONCE):
        some = places[begin : begin + _CHOSEN_AT_ONCE]
        asked = [rows[number] for number, _ in some]
        yield Places(
            asked,
            [number for number, _ in some],
            [index for _, index in some],
            [
                row.num_said + index == len(row.start) - 1
                for row, (_, index) in zip(asked, some, strict=True)
            ],
        )


def staying(rows: Sequence[Row[ArrayT]]) -> list[int]:
    """The rows to go on with: those that have ended leave once they are worth a copy."""
    left = [number for number, row in enumerate(rows) if not row.ended]
    return left if len(rows) - len(left) >= _LEAVING_SHARE * len(rows) else list(range(len(rows)))


def hypothesis_of(
    window: Window,
    language: tuple[str, float],
    row: Row[ArrayT],
    tokens: WhisperTokens,
    token_frames: Callable[[Sequence[ArrayT], int], NDArray[np.int64]],
) -> Hypothesis:
    """What a window said.

    Args:
        window: The window.
        language: Its code, and the confidence in it.
        row: Its text, said.
        tokens: Of the model.
        token_frames: Row's scores, and the number of tokens that start the text -> (n + 1,) the
            encoder frame at which each of its n tokens starts, and the last one ends.

    """
    if not row.tokens:
        return Hypothesis((), *language, row.no_speech_probability, 0.0)
    words = timed_words(
        window,
        tokens.split(row.tokens, language[0]),
        row.tokens,
        token_frames(row.scores, len(row.start) - row.sot),
        np.exp(row.log_probabilities).tolist(),
    )
    mean = float(np.mean(row.log_probabilities))
    return Hypothesis(words, *language, row.no_speech_probability, mean)


def languages_of(
    windows: Sequence[Window],
    tokens: WhisperTokens,
    first_logits: Callable[[list[int]], FloatArray],
) -> list[tuple[str, float]]:
    """Each window's language, and the confidence in it.

    Args:
        windows: Of a batch.
        tokens: Of the model.
        first_logits: Rows of the batch -> (rows, vocabulary) what each would say behind
            start-of-transcript. It is asked about windows whose language is not given.

    """
    if not tokens.languages:
        return [("en", 1.0)] * len(windows)
    found = [(window.language_code, 1.0) for window in windows]
    unknown = [number for number, (code, _) in enumerate(found) if not code]
    if unknown:
        spoken = first_logits(unknown)[:, list(tokens.languages.values())]
        weights = np.exp(spoken - spoken.max(-1, keepdims=True))
        for number, weight in zip(unknown, weights, strict=True):
            best = int(weight.argmax())
            found[number] = tokens.language_codes[best], float(weight[best] / weight.sum())
    return found
