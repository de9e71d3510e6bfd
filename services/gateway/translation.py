"""What a translator has made of a transcript in one language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TranslationPiece:
    """Text that never changes, and the words that it translates."""

    text: str
    """With the white space before it."""
    first_sample: int
    """Position of the first of the words."""
    end_sample: int
    """Position after the last of them."""


class Translation:
    """A log of committed pieces, and a tail that may still change.

    ``pieces`` only ever grows, and what it holds is immutable: a reader remembers how far it has
    read.
    """

    def __init__(self, revised: Callable[[], None]) -> None:
        """Begin with nothing.

        Args:
            revised: Called whenever anything changes.

        """
        self._revised = revised
        self._pieces: list[TranslationPiece] = []
        self.tail = ""
        """What follows the pieces, as far as it is known now."""

    @property
    def pieces(self) -> Sequence[TranslationPiece]:
        """Committed text, oldest first."""
        return self._pieces

    def commit(self, piece: TranslationPiece) -> None:
        """Add text for good; it takes the place of as much of the tail as said the same."""
        self._pieces.append(piece)
        self.tail = self.tail[len(piece.text) :] if self.tail.startswith(piece.text) else ""
        self._revised()

    def replace_tail(self, text: str) -> None:
        """Say what may still change now; no news is no revision."""
        if text != self.tail:
            self.tail = text
            self._revised()
