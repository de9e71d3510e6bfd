"""One round: the texts of a batch of windows, decoded together.

Rows differ in prompt, in length and in position. A row's draft is said at once, behind its prompt,
and believed as far as each of its tokens is the one that would have been chosen; what follows is
chosen one by one. Rows that have ended leave the batch.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch

from services.asr.engines import whisper_row
from services.asr.engines.torch_decoder import Decoder, Sound, Text
from services.asr.engines.whisper_row import verified_places

Row: TypeAlias = whisper_row.Row[torch.Tensor]
Vocabulary: TypeAlias = whisper_row.Vocabulary[torch.Tensor]

_LEAVING_SHARE = 0.25
"""Rows that have ended stay until they are so many: to leave means to copy the others."""
_VERIFIED_AT_ONCE = 256
"""Positions of drafts: each takes a row as long as the vocabulary."""


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
        self._begin()
        while not all(row.ended for row in self._rows):
            self._leave()
            self._step()

    def _begin(self) -> None:
        """Say prompts and drafts, and choose what follows."""
        said = [[*row.start, *row.draft] for row in self._rows]
        longest = max(map(len, said))
        ids = self._tensor([tokens + [0] * (longest - len(tokens)) for tokens in said])
        positions = torch.arange(longest, device=ids.device).expand_as(ids)
        states, queries = self._decoder(ids, positions, longest, self._text, self._sound)
        self._judge_speech(states)
        chosen = self._choose_after_drafts(states)
        for number, row in enumerate(self._rows):
            end = row.verify(chosen[number], eot=self._vocabulary.eot)
            self._keep_scores(number, queries, row.sot, end)

    def _step(self) -> None:
        """Say each row's last token, and choose what follows."""
        ids = self._tensor([[row.tokens[-1] if row.tokens else 0] for row in self._rows])
        places = [len(row.start) + len(row.tokens) - 1 for row in self._rows]
        positions = self._tensor([[place] for place in places])
        states, queries = self._decoder(ids, positions, max(places) + 1, self._text, self._sound)
        choices = self._choose(self._decoder.logits(states[:, 0]), self._rows)
        scores = self._decoder.scores(queries, self._sound.aligned)
        for number, (row, choice) in enumerate(zip(self._rows, choices, strict=True)):
            if not row.ended:
                row.scores.append(scores[number, :, :, : row.num_frames])
                row.say(*choice, eot=self._vocabulary.eot)

    def _leave(self) -> None:
        """Let rows go that have ended."""
        staying = [number for number, row in enumerate(self._rows) if not row.ended]
        if len(self._rows) - len(staying) >= max(1, _LEAVING_SHARE * len(self._rows)):
            index = self._tensor(staying)
            self._sound = self._sound.select(index)
            self._text = self._text.select(index)
            self._rows = [self._rows[number] for number in staying]

    def _keep_scores(
        self, number: int, queries: Sequence[torch.Tensor], begin: int, end: int
    ) -> None:
        row = self._rows[number]
        part = [query[number : number + 1, :, begin:end] for query in queries]
        keys = [keys[number : number + 1, :, : row.num_frames] for keys in self._sound.aligned]
        row.scores.append(self._decoder.scores(part, keys)[0])

    def _judge_speech(self, states: torch.Tensor) -> None:
        at_sot = states[list(range(len(self._rows))), [row.sot for row in self._rows]]
        probabilities = self._decoder.logits(at_sot).softmax(-1)[:, self._vocabulary.no_speech]
        for row, probability in zip(self._rows, probabilities.tolist(), strict=True):
            row.no_speech_probability = probability

    def _choose_after_drafts(self, states: torch.Tensor) -> list[list[tuple[int, float]]]:
        """Per row, what comes first, and what comes after each token of its draft."""
        places = verified_places(self._rows)
        chosen: list[list[tuple[int, float]]] = [[] for _ in self._rows]
        for begin in range(0, len(places), _VERIFIED_AT_ONCE):
            part = places[begin : begin + _VERIFIED_AT_ONCE]
            numbers, positions = zip(*part, strict=True)
            logits = self._decoder.logits(states[list(numbers), list(positions)])
            first = [place == len(self._rows[number].start) - 1 for number, place in part]
            rows = [self._rows[number] for number in numbers]
            for number, choice in zip(numbers, self._choose(logits, rows, first), strict=True):
                chosen[number].append(choice)
        return chosen

    def _choose(
        self, logits: torch.Tensor, rows: Sequence[Row], first: Sequence[bool] | None = None
    ) -> list[tuple[int, float]]:
        """A token of each row, and its log probability among those of text.

        Args:
            logits: (rows, vocabulary) float32.
            rows: Whose they are.
            first: Which of them stand for the first token of a text; None: none.

        """
        words = self._vocabulary
        allowed = logits + words.barred
        if first is not None:
            allowed[torch.tensor(first)] += words.barred_first
        tokens = allowed.argmax(-1)
        warm = [number for number, row in enumerate(rows) if row.temperature > 0]
        if warm:
            tokens[warm] = _draw(allowed[warm], [rows[number] for number in warm])
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
