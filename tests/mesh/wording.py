"""How two texts differ, word by word."""

import warnings
from dataclasses import dataclass

import jiwer

with warnings.catch_warnings():
    # It has escape sequences that Python warns of when it compiles them for the first time.
    warnings.simplefilter("ignore")
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

_english = EnglishTextNormalizer()
_basic = BasicTextNormalizer()


@dataclass(frozen=True, slots=True)
class Difference:
    """A text against its reference, both normalised as Whisper's authors do."""

    wer_percent: float
    lost: tuple[str, ...]
    """Runs of words of the reference that are not in the text."""
    added: tuple[str, ...]
    """Runs of words of the text that are not in the reference."""

    @property
    def longest_lost(self) -> int:
        """Words in the longest run that is missing: one is a misreading, several are a hole."""
        return max((len(run.split()) for run in self.lost), default=0)

    @property
    def longest_added(self) -> int:
        """Words in the longest run too much: one is a misreading, several are a repetition."""
        return max((len(run.split()) for run in self.added), default=0)


def difference(reference: str, text: str, *, language_code: str = "en") -> Difference:
    """Compare a text with what it should be."""
    normalize = _english if language_code == "en" else _basic
    expected, heard = normalize(reference), normalize(text)
    aligned = jiwer.process_words(expected, heard)
    [chunks] = aligned.alignments
    lost = [
        " ".join(expected.split()[chunk.ref_start_idx : chunk.ref_end_idx])
        for chunk in chunks
        if chunk.type == "delete"
    ]
    added = [
        " ".join(heard.split()[chunk.hyp_start_idx : chunk.hyp_end_idx])
        for chunk in chunks
        if chunk.type == "insert"
    ]
    return Difference(100 * aligned.wer, tuple(lost), tuple(added))


def assert_same_words(reference: str, text: str, *, below_percent: float = 4) -> None:
    """See that nothing is missing and nothing is said twice; a word may be read differently."""
    found = difference(reference, text)
    assert found.longest_lost <= 1, found
    assert found.longest_added <= 1, found
    assert found.wer_percent < below_percent, found
