import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr.policies.continuation import continuation
from services.common.words import Word


def timed(*words: tuple[str, float, float]) -> list[Word]:
    return [Word(f" {text}", round(first * 100), round(end * 100)) for text, first, end in words]


def words(text: str, *, first: int = 0) -> list[Word]:
    """A word every 100 samples, each 80 long."""
    return [
        Word(f" {w}", first + n * 100, first + n * 100 + 80) for n, w in enumerate(text.split())
    ]


@pytest.mark.parametrize(
    ("committed", "hypothesis", "index"),
    [
        ("", "", 0),
        ("", "to be", 0),
        ("to be", "", 0),
        ("to be", "to be", 2),
        ("to be", "to be or not", 2),
        ("to be", "To, be! or not", 2),
        ("to be", "to bee or not", 2),
        ("to be", "two bee or not", 2),
        ("to be or", "to or not", 2),  # one was left out
        ("be or", "to be or not", 3),  # one came in
        ("to to to", "to to to to", 3),
        ("to", "to", 1),
    ],
)
def test_committed_words_are_found_again(committed: str, hypothesis: str, index: int) -> None:
    assert continuation(words(committed), words(hypothesis)) == index


def test_of_equal_places_the_nearest_in_time_is_taken() -> None:
    hypothesis = words("no no no no no")
    for number in range(1, 5):
        assert continuation(hypothesis[:number], hypothesis) == number


@pytest.mark.parametrize(
    ("hypothesis", "index"),
    [
        (timed(("hat", 20.1, 20.4), ("then", 21.0, 21.3)), 1),
        (timed(("then", 21.0, 21.3)), 0),
        (timed(("then", 21.0, 21.3), ("came", 21.4, 21.8)), 0),
        (timed(("cat", 20.2, 20.5), ("then", 21.0, 21.3)), 1),
        ([], 0),
    ],
)
def test_a_word_that_is_not_heard_again_costs_no_other_word(
    hypothesis: list[Word], index: int
) -> None:
    committed = timed(("cat", 20.0, 20.4))
    assert continuation(committed, hypothesis) == index


names = st.text(string.ascii_lowercase, min_size=1, max_size=6)


@given(
    committed=st.lists(names, min_size=1, max_size=15),
    new=st.lists(names.map(lambda name: f"{name}9"), max_size=8),
    edits=st.sets(st.integers(0, 14)),
    shouted=st.sets(st.integers(0, 14)),
    shift=st.integers(-9, 9),
)
def test_committed_words_are_found_again_after_any_edits_of_spelling_and_case(
    committed: list[str], new: list[str], edits: set[int], shouted: set[int], shift: int
) -> None:
    heard = [f"{name}8{n}" if n in edits else name for n, name in enumerate(committed)]
    heard = [f"{name.upper()}!" if n in shouted else name for n, name in enumerate(heard)]
    hypothesis = words(" ".join([*heard, *new]), first=shift)
    assert continuation(words(" ".join(committed)), hypothesis) == len(committed)


@given(
    committed=st.lists(names, min_size=1, max_size=12),
    hypothesis=st.lists(names, max_size=12),
)
def test_it_always_points_into_the_hypothesis(committed: list[str], hypothesis: list[str]) -> None:
    index = continuation(words(" ".join(committed)), words(" ".join(hypothesis)))
    assert 0 <= index <= len(hypothesis)
