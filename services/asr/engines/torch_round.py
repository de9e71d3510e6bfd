"""One round: the texts of a batch of windows, decoded together.

Rows differ in prompt, in length and in position. A row's draft is said at once, behind its prompt,
and believed as far as each of its tokens is the one that would have been chosen; behind another one
it goes on, a few tokens at a time, and what it lacks is chosen one by one. Rows that have ended
leave the batch.
"""

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import torch

from services.asr.engines import whisper_row
from services.asr.engines.torch_decoder import Decoder, Sound, Text
from services.asr.engines.whisper_row import choosing, staying

Row: TypeAlias = whisper_row.Row[torch.Tensor]
Vocabulary: TypeAlias = whisper_row.Vocabulary[torch.Tensor]
Places: TypeAlias = whisper_row.Places[torch.Tensor]


def decode(decoder: Decoder, vocabulary: Vocabulary, rows: Sequence[Row], sound: Sound) -> None:
    """Say each row's text; it is written into the row."""
    _Round(decoder, vocabulary, rows, sound).run()


def first_logits(decoder: Decoder, token: int, sound: Sound, num_rows: int) -> torch.Tensor:
    """What each row would say after one token.  -> (rows, vocabulary) float32."""
    ids = torch.full((num_rows, 1), token, device=decoder.device)
    states, _ = decoder(ids, torch.zeros_like(ids), 1, decoder.begin(num_rows), sound)
    return decoder.logits(states[:, 0])


class _Round:
    def __init__(
        self, decoder: Decoder, vocabulary: Vocabulary, rows: Sequence[Row], sound: Sound
    ) -> None:
        self._decoder = decoder
        self._vocabulary = vocabulary
        self._rows = list(rows)
        self._sound = sound
        self._text: Text = decoder.begin(len(rows))

    def run(self) -> None:
        while not all(row.ended for row in self._rows):
            self._leave()
            self._pass()

    def _pass(self) -> None:
        """Say what each row has chosen, and a guess, and choose what follows."""
        said = [[*row.chosen, *row.guess] for row in self._rows]
        before = [row.num_said for row in self._rows]
        longest = max(map(len, said))
        ids = self._tensor([tokens + [0] * (longest - len(tokens)) for tokens in said])
        positions = self._tensor(before)[:, None] + torch.arange(longest, device=ids.device)
        end = max(before) + longest
        states, queries = self._decoder(ids, positions, end, self._text, self._sound)
        first_pass = not any(before)
        if first_pass:
            self._judge_speech(states)
        else:
            scores = self._decoder.scores(queries, self._sound.aligned)
        choices = itertools.chain.from_iterable(
            self._choose(self._decoder.logits(states[places.numbers, places.indices]), places)
            for places in choosing(self._rows)
        )
        for number, row in enumerate(self._rows):
            if row.ended:
                continue
            picked = [next(choices) for _ in range(len(row.guess) + 1)]
            kept = row.learn(picked, eot=self._vocabulary.eot)
            if first_pass:
                row.scores.append(self._scores(number, queries, row.sot, kept))
            else:
                row.scores.append(scores[number, :, :kept, : row.num_frames])

    def _leave(self) -> None:
        """Let rows go that have ended."""
        if len(left := staying(self._rows)) < len(self._rows):
            index = self._tensor(left)
            self._sound = self._sound.select(index)
            self._text = self._text.select(index)
            self._rows = [self._rows[number] for number in left]

    def _scores(
        self, number: int, queries: Sequence[torch.Tensor], begin: int, end: int
    ) -> torch.Tensor:
        """A row's scores alone: those of all rows at all places would take much memory."""
        row = self._rows[number]
        part = [query[number : number + 1, :, begin:end] for query in queries]
        keys = [keys[number : number + 1, :, : row.num_frames] for keys in self._sound.aligned]
        return self._decoder.scores(part, keys)[0]

    def _judge_speech(self, states: torch.Tensor) -> None:
        at_sot = states[list(range(len(self._rows))), [row.sot for row in self._rows]]
        probabilities = self._decoder.logits(at_sot).softmax(-1)[:, self._vocabulary.no_speech]
        for row, probability in zip(self._rows, probabilities.tolist(), strict=True):
            row.no_speech_probability = probability

    def _choose(self, logits: torch.Tensor, places: Places) -> list[tuple[int, float]]:
        """What is said next, and its log probability among what is text.

        Args:
            logits: (places, vocabulary) float32.
            places: Where.

        """
        words = self._vocabulary
        allowed = logits + words.barred
        allowed[torch.tensor(places.first)] += words.barred_first
        tokens = allowed.argmax(-1)
        warm = [number for number, row in enumerate(places.rows) if row.temperature > 0]
        if warm:
            tokens[warm] = _draw(allowed[warm], [places.rows[number] for number in warm])
        total = logits[:, : words.eot].logsumexp(-1)
        log_probabilities = logits.gather(1, tokens[:, None])[:, 0] - total
        return list(zip(tokens.tolist(), log_probabilities.tolist(), strict=True))

    def _tensor(self, values: object) -> torch.Tensor:
        return torch.tensor(values, device=self._decoder.device)


def _draw(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """Tokens by chance, each with its probability at its row's temperature."""
    temperatures = torch.tensor([[row.temperature] for row in rows], device=logits.device)
    reached = (logits / temperatures).softmax(-1).cumsum(-1)
    # Less than 1 also in float32, so that there is a token that reaches it.
    chances = torch.tensor([[row.chance.random() * (1 - 1e-6)] for row in rows])
    wanted = chances.to(reached) * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True)[:, 0]
