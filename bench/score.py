"""How a text differs from what was said: words wrong, lost, added, and said again."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import jiwer

with warnings.catch_warnings():
    # It has escape sequences that Python warns of when it compiles them for the first time.
    warnings.simplefilter("ignore")
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

_english = EnglishTextNormalizer()
_basic = BasicTextNormalizer()


def normalize(text: str, language_code: str) -> list[str]:
    """The words of a text as Whisper's authors compare them.

    English loses case, punctuation, hesitations and spelling variants, and writes numbers as
    digits; other languages lose case and punctuation.
    """
    normalizer = _english if language_code == "en" else _basic
    return str(normalizer(text)).split()


@dataclass(frozen=True, slots=True)
class Step:
    """A run of words that an alignment treats alike; indices count words, ends exclusive."""

    kind: str
    """``equal``, ``substitute``, ``delete`` or ``insert``."""
    reference: range
    text: range


def align(reference: Sequence[str], text: Sequence[str]) -> list[Step]:
    """The least edits (Levenshtein) that make the text of the reference, in order."""
    if not reference or not text:
        kind = "insert" if text else "delete"
        whole = Step(kind, range(len(reference)), range(len(text)))
        return [whole] if reference or text else []
    [chunks] = jiwer.process_words(" ".join(reference), " ".join(text)).alignments
    return [
        Step(
            chunk.type,
            range(chunk.ref_start_idx, chunk.ref_end_idx),
            range(chunk.hyp_start_idx, chunk.hyp_end_idx),
        )
        for chunk in chunks
    ]


@dataclass(frozen=True, slots=True)
class Repetition:
    """Two or more words said again at once, which the reference does not have."""

    first: int
    """Index in the text of the second saying's first word."""
    num_words: int


def repetitions(reference: Sequence[str], text: Sequence[str]) -> list[Repetition]:
    """Every round of a loop but the first, in order."""
    placed = _places(align(reference, text))
    found = []
    start = 0
    while start + 4 <= len(text):
        num_words = _round(text, start)
        if num_words and not _consecutive(placed, start, 2 * num_words):
            found.append(Repetition(start + num_words, num_words))
            start += num_words
        else:
            start += 1
    return found


def _round(text: Sequence[str], start: int) -> int:
    """Length of the shortest run of at least two words that is said twice from here; 0: none."""
    for length in range(2, (len(text) - start) // 2 + 1):
        # The first word decides nearly always, and a session of hours has thousands of lengths.
        if text[start] == text[start + length] and all(
            text[start + at] == text[start + length + at] for at in range(1, length)
        ):
            return length
    return 0


def _places(steps: Iterable[Step]) -> dict[int, int]:
    """Where in the reference the words stand that were heard right."""
    return {
        heard: expected
        for step in steps
        if step.kind == "equal"
        for expected, heard in zip(step.reference, step.text, strict=True)
    }


def _consecutive(placed: dict[int, int], start: int, num_words: int) -> bool:
    """Whether a run of the text stands in the reference just so."""
    first = placed.get(start)
    return first is not None and all(
        placed.get(start + offset) == first + offset for offset in range(num_words)
    )


@dataclass(frozen=True, slots=True)
class Tally:
    """Errors of one text, or of many added up."""

    words: int = 0
    """In the reference."""
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    """Repeated words among them."""
    repetitions: int = 0
    """How many times two or more words were said again at once."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.repetitions + other.repetitions,
        )

    @property
    def wer_percent(self) -> float:
        """Errors per hundred words of the reference."""
        errors = self.substitutions + self.deletions + self.insertions
        return 100 * errors / self.words if self.words else 0.0

    def row(self) -> dict[str, float]:
        """As results are written."""
        return {
            "wer_percent": round(self.wer_percent, 2),
            "words": self.words,
            "substitutions": self.substitutions,
            "deletions": self.deletions,
            "insertions": self.insertions,
            "repetitions": self.repetitions,
        }


@dataclass(frozen=True, slots=True)
class Compared:
    """A text against its reference."""

    tally: Tally
    differences: list[str] = field(default_factory=list)
    """Each as ``expected > heard``."""


def compare(reference: str, text: str, language_code: str) -> Compared:
    """Count the errors of a text, and say what they are."""
    expected = normalize(reference, language_code)
    heard = normalize(text, language_code)
    steps = align(expected, heard)
    counts = dict.fromkeys(("equal", "substitute", "delete", "insert"), 0)
    differences = []
    for step in steps:
        counts[step.kind] += max(len(step.reference), len(step.text))
        if step.kind != "equal":
            was = " ".join(expected[index] for index in step.reference)
            became = " ".join(heard[index] for index in step.text)
            differences.append(f"{was or '-'} > {became or '-'}")
    return Compared(
        Tally(
            words=len(expected),
            substitutions=counts["substitute"],
            deletions=counts["delete"],
            insertions=counts["insert"],
            repetitions=len(repetitions(expected, heard)),
        ),
        differences,
    )
