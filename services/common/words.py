"""A word and where it was said: the domain's form of ``voxmesh.common.v1.Word``."""

from collections.abc import Iterable
from dataclasses import dataclass

from voxmesh.common.v1 import text_pb2


@dataclass(frozen=True, slots=True)
class Word:
    """One word with its place on the lane's clock.

    ``text`` carries the white space that belongs before it, so joining texts gives the transcript.
    """

    text: str
    first_sample: int
    end_sample: int
    probability: float = 1.0
    token_ids: tuple[int, ...] = ()
    speaker: int = 0
    """Who said it, from 1 in order of appearance; 0: nobody was told apart."""
    overlapped: bool = False
    """Whether somebody else spoke meanwhile."""


def words_to_proto(words: Iterable[Word]) -> list[text_pb2.Word]:
    """Words as they travel."""
    return [
        text_pb2.Word(
            text=word.text,
            first_sample=word.first_sample,
            end_sample=word.end_sample,
            probability=word.probability,
            token_ids=word.token_ids,
        )
        for word in words
    ]


def words_from_proto(words: Iterable[text_pb2.Word]) -> tuple[Word, ...]:
    """Words as they arrived."""
    return tuple(
        Word(
            word.text,
            word.first_sample,
            word.end_sample,
            word.probability,
            tuple(word.token_ids),
        )
        for word in words
    )


def text_of(words: Iterable[Word]) -> str:
    """The text that the words make, with its leading white space."""
    return "".join(word.text for word in words)
