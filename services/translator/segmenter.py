"""Where sentences end."""

import re
from collections.abc import Sequence
from itertools import accumulate

from sentencex import segment

from services.translator.languages import Language

_NEXT = " A"
"""How another sentence could begin: what looks finished behind it is."""
_INITIAL = re.compile(r"(^|\s)\w\.\s*$")
"""No end, though the library takes some of them for one: M. Dupont."""
_MAX_WORDS = 80
"""Nobody waits longer for the end of a sentence; engines do not do well on longer ones."""


def finished(words: Sequence[str], language: Language) -> list[int]:
    """The sentences that are finished in a text that grows.

    Abbreviations and decimals end no sentence, whatever may follow them.

    Args:
        words: The text so far, each word with the white space before it.
        language: Its language.

    Returns:
        Their lengths in words, in order; what follows them is not finished.

    """
    text = "".join(words)
    lead = len(text) - len(text.lstrip())
    pieces = list(segment(language.tag.partition("-")[0], text.strip() + _NEXT))
    ends = [
        end + lead
        for piece, end in zip(pieces[:-1], accumulate(map(len, pieces)), strict=False)
        if not _INITIAL.search(piece)
    ]
    places = list(accumulate(map(len, words)))
    counts = [sum(place <= end for place in places) for end in ends]
    lengths = [after - before for before, after in zip([0, *counts], counts, strict=False)]
    found = [length for length in lengths if length]
    rest = len(words) - sum(found)
    return [*found, *[_MAX_WORDS] * (rest // _MAX_WORDS)]
