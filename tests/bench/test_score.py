"""The counting of errors."""

import pytest

from bench.score import Repetition, Step, Tally, align, compare, normalize, repetitions


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("a b c d", "a b c d", Tally(4)),
        ("a b c d", "a x c d", Tally(4, substitutions=1)),
        ("a b c d", "a d", Tally(4, deletions=2)),
        ("a b c d", "a b x y c d", Tally(4, insertions=2)),
        ("a b c d", "", Tally(4, deletions=4)),
        ("", "a b", Tally(0, insertions=2)),
        ("", "", Tally()),
        ("a b c d", "a b a b c d", Tally(4, insertions=2, repetitions=1)),
        ("I'm here, Mister Hale.", "i am here Mr. hale", Tally(5)),
        ("twenty five", "25", Tally(1)),
    ],
)
def test_errors_are_counted_by_kind(reference: str, text: str, expected: Tally) -> None:
    assert compare(reference, text, "en").tally == expected


def test_differences_say_what_was_said_and_what_was_heard() -> None:
    compared = compare("one fine day", "a fine summer day", "de")
    assert compared.differences == ["one > a", "- > summer"]


def test_languages_other_than_english_lose_case_and_punctuation_alone() -> None:
    assert normalize("Zwanzig, fünf!", "de") == ["zwanzig", "fünf"]


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("the cat sat", "the cat the cat sat", [Repetition(2, 2)]),
        (
            "the cat sat",
            "the cat sat the cat sat the cat sat",
            [Repetition(3, 3), Repetition(6, 3)],
        ),
        ("very good very good indeed", "very good very good indeed", []),
        ("very good indeed", "very good very good indeed", [Repetition(2, 2)]),
        ("we had it", "we we had it", []),
        ("the cat sat down", "the cat sat on the cat sat down", []),
        ("so it is", "so it is it is it is", [Repetition(3, 2), Repetition(5, 2)]),
        ("very good very good", "very good very good very good", [Repetition(3, 2)]),
    ],
)
def test_a_repetition_is_two_words_or_more_said_again_at_once(
    reference: str, text: str, expected: list[Repetition]
) -> None:
    assert repetitions(reference.split(), text.split()) == expected


def test_an_alignment_tells_runs_apart() -> None:
    assert align(["a", "b", "c"], ["a", "x", "c", "d"]) == [
        Step("equal", range(1), range(1)),
        Step("substitute", range(1, 2), range(1, 2)),
        Step("equal", range(2, 3), range(2, 3)),
        Step("insert", range(3, 3), range(3, 4)),
    ]


def test_tallies_add_up() -> None:
    total = Tally(10, 1, 0, 1, 0) + Tally(30, 0, 2, 0, 1)
    assert total == Tally(40, 1, 2, 1, 1)
    assert total.wer_percent == 10
