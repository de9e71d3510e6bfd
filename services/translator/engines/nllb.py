"""NLLB-200: 202 languages, from each to each, whichever library computes it.

A translation goes on behind a prefix, and attention says which words of the source it comes from.

Source: NLLB Team, "No Language Left Behind", 2022. The source is ``[language] text </s>``, the
target starts with ``</s>`` and its language.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from services.common.errors import InvalidRequestError
from services.common.models import ModelError
from services.translator.languages import LANGUAGES, Language
from services.translator.translator import Job, Look, Pair, Translation

_END = "</s>"
MAX_TOKENS = 256
"""What the model was trained on at most, and what a source that makes it loop runs to."""
_GROWTH = 3
"""A translation has no more tokens than so many times its source, and some."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A text for the network, in tokens' numbers."""

    source: list[int]
    """Its language, the text, the end."""
    begin: list[int]
    """What the target starts with: the end, its language, the prefix."""
    limit: int
    """Beyond so many tokens, the language among them, nothing is said."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the network makes of a text."""

    ids: list[int]
    """Behind the language: the prefix and what follows, without the end."""
    looks: list[int]
    """For each of them, which token of the text attention is on; the text's first is 0."""


class Network(Protocol):
    """The library that computes. Attention is that of the last layer's first head."""

    def decode(self, asks: Sequence[Ask]) -> list[Said]:
        """Say what is likeliest, token by token; no text changes what is said of another.

        Raises:
            DeviceError: The model failed, for at least one of them.

        """
        ...


class Nllb:
    """NLLB-200. Implements ``Translator``."""

    forces_prefix = True

    def __init__(self, name: str, tokenizer: Tokenizer, network: Network) -> None:
        """Put together what ``load_tokenizer`` and a network read from a folder of that name.

        Raises:
            ModelError: The tokenizer is not that of an NLLB.

        """
        self._tokenizer = tokenizer
        self._network = network
        self._vocabulary = tokenizer.get_vocab()
        self._languages = languages_of(name, tokenizer)
        self.name = f"nllb-{name}"
        self.example = Pair(*self._languages[:2])

    def check(self, pair: Pair) -> None:
        """See ``Translator``."""
        check_known(pair, self._languages)

    def bucket(self, job: Job) -> Hashable:
        """See ``Translator``: texts of about one length, so that little is padded."""
        return len(job.text) // 100

    def translate(self, jobs: Sequence[Job]) -> list[Translation]:
        """See ``Translator``."""
        texts = [self._tokens(job.text) for job in jobs]
        asks = [self._ask(job, ids) for job, (ids, _) in zip(jobs, texts, strict=True)]
        said = self._network.decode(asks)
        return [
            self._translation(one, places) for one, (_, places) in zip(said, texts, strict=True)
        ]

    def _ask(self, job: Job, ids: list[int]) -> Ask:
        end = self._vocabulary[_END]
        prefix = self._tokens(job.prefix)[0] if job.prefix else []
        return Ask(
            [self._vocabulary[job.pair.source.code], *ids, end],
            [end, self._vocabulary[job.pair.target.code], *prefix],
            limit(len(ids)),
        )

    def _tokens(self, text: str) -> tuple[list[int], list[int]]:
        """The tokens of a text, and where each begins in it."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids[:MAX_TOKENS], [begin for begin, _ in encoded.offsets][:MAX_TOKENS]

    def _translation(self, said: Said, places: Sequence[int]) -> Translation:
        looks = tuple(
            Look(len(self._tokenizer.decode(said.ids[:number])), places[look] if places else 0)
            for number, look in enumerate(said.looks, 1)
        )
        return Translation(self._tokenizer.decode(said.ids), looks)


def limit(num_tokens: int) -> int:
    """Beyond so many tokens, its language among them, a translation of so many says nothing."""
    return min(MAX_TOKENS, _GROWTH * num_tokens + 10)


def languages_of(name: str, tokenizer: Tokenizer) -> list[Language]:
    """The languages that a model of that name knows, by its tokenizer.

    Raises:
        ModelError: The tokenizer is not that of an NLLB.

    """
    vocabulary = tokenizer.get_vocab()
    found = [one for one in LANGUAGES if one.code in vocabulary]
    if len(found) < 2 or _END not in vocabulary:
        raise ModelError(f"{name} is no NLLB: its tokenizer knows no two languages")
    return found


def check_known(pair: Pair, languages: Sequence[Language]) -> None:
    """See whether a model knows both of them.

    Raises:
        InvalidRequestError: It does not; the message lists those it knows.

    """
    for language in (pair.source, pair.target):
        if language not in languages:
            known = ", ".join(known.tag for known in languages)
            raise InvalidRequestError(f"the model does not know {language.name}, only: {known}")


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read a model's ``tokenizer.json``.

    Raises:
        ModelError: The folder has none.

    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder} holds no NLLB: it has no {path.name}")
    # The tokenizer of Rust panics at a damaged file with an exception of no other kind.
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
