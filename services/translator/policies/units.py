"""Translated text in units: words, or characters where a language does not part words."""

import re
from collections.abc import Sequence

_CHARACTER = re.compile(r"\s*\S")


def units_of(text: str, *, spaced: bool) -> tuple[str, ...]:
    """The units of a text, each with the white space before it."""
    if spaced:
        return tuple(f" {word}" for word in text.split())
    return tuple(_CHARACTER.findall(text.strip()))


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many units two texts share at their beginnings."""
    shared = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        shared += 1
    return shared


def continuation(committed: Sequence[str], found: Sequence[str]) -> int:
    """Where a translation goes on behind text that it may contradict.

    That is behind the part of it that is nearest to the text, by edit distance; of several, behind
    the one whose length is nearest.

    Args:
        committed: What was said already and is never taken back.
        found: A translation of the same sentence, or of more of it.

    Returns:
        The number of units of ``found`` that are not to be said again.

    """
    distances = list(range(len(found) + 1))
    for row, unit in enumerate(committed, 1):
        before, distances = distances, [row]
        for column, other in enumerate(found, 1):
            distances.append(
                min(
                    before[column] + 1,
                    distances[-1] + 1,
                    before[column - 1] + (unit != other),
                )
            )
    return min(
        range(len(distances)),
        key=lambda end: (distances[end], abs(end - len(committed)), end),
    )
