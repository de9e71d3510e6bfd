from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr.policies.local_agreement import agree
from services.asr.policies.normal_form import normal_form
from services.common.words import Word


def words(text: str) -> list[Word]:
    """A word every 100 samples, each 80 long."""
    return [Word(f" {w}", n * 100, n * 100 + 80) for n, w in enumerate(text.split())]


@pytest.mark.parametrize(
    ("previous", "current", "agreed"),
    [
        ([""], "", 0),
        ([""], "to be", 0),
        (["to be"], "", 0),
        (["to be"], "to be or", 2),
        (["to be or"], "to be", 2),
        (["to bee or"], "to be or", 1),
        (["two be or"], "to be or", 0),
        (["To, be!"], "to Be or", 2),
        (["... be"], "! be", 0),
        (["... be"], "... be", 2),
        (["to be or not", "to be or"], "to be or not", 3),
        (["to bee or not", "to be or"], "to be or not", 1),
        (["to be or not", "to bee"], "to be or not", 1),
    ],
)
def test_words_are_certain_while_consecutive_hypotheses_share_them(
    previous: Sequence[str], current: str, agreed: int
) -> None:
    others = [words(text) for text in previous]
    assert agree(others, words(current), num_hypotheses=len(others) + 1) == agreed


def test_only_the_newest_hypotheses_have_to_agree() -> None:
    previous = [words("two bee"), words("to be")]
    assert agree(previous, words("to be or"), num_hypotheses=2) == 2
    assert agree(previous, words("to be or"), num_hypotheses=3) == 0


def test_with_too_few_hypotheses_nothing_is_certain() -> None:
    assert agree([], words("to be"), num_hypotheses=2) == 0
    assert agree([words("to be")], words("to be"), num_hypotheses=3) == 0


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (" Hello,", "hello"),
        ("HELLO", "hello"),
        (" „Straße“", "strasse"),
        ("don't", "dont"),
        ("\u2026", "..."),
        (" \u2014", "\u2014"),
        ("\uff28\uff49", "hi"),  # full width
        ("\u3053\u3093", "\u3053\u3093"),
        (" 5%", "5"),
    ],
)
def test_case_width_and_punctuation_make_no_other_word(text: str, form: str) -> None:
    assert normal_form(text) == form


texts = st.lists(st.sampled_from(["to", "be", "To,", "or"]), max_size=8).map(" ".join)


@given(hypotheses=st.lists(texts, min_size=2, max_size=4))
def test_what_is_agreed_is_a_shared_beginning_and_no_longer_one_exists(
    hypotheses: list[str],
) -> None:
    *old, new = map(words, hypotheses)
    agreed = agree(old, new, num_hypotheses=len(hypotheses))
    forms = [[normal_form(word.text) for word in side] for side in (*old, new)]
    assert len({tuple(side[:agreed]) for side in forms}) == 1
    if agreed < min(map(len, forms)):
        assert len({side[agreed] for side in forms}) > 1
