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
    ("previous", "current", "before", "agreed"),
    [
        ("", "", 1000, 0),
        ("", "to be", 1000, 0),
        ("to be", "", 1000, 0),
        ("to be", "to be or", 1000, 2),
        ("to be or", "to be", 1000, 2),
        ("to bee or", "to be or", 1000, 1),
        ("two be or", "to be or", 1000, 0),
        ("To, be!", "to Be or", 1000, 2),
        ("to be or not", "to be or not", 380, 4),
        ("to be or not", "to be or not", 379, 3),
        ("to be or not", "to be or not", 79, 0),
        ("to be or not", "to be or not", -5, 0),
        ("... be", "! be", 1000, 0),
        ("... be", "... be", 1000, 2),
    ],
)
def test_words_are_certain_while_two_hypotheses_share_them(
    previous: str, current: str, before: int, agreed: int
) -> None:
    assert agree(words(previous), words(current), before_sample=before) == agreed


def test_times_of_the_newer_hypothesis_count() -> None:
    [early], [late] = words("be"), [Word(" be", 500, 900)]
    assert agree([late], [early], before_sample=500) == 1
    assert agree([early], [late], before_sample=500) == 0


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


@given(previous=texts, current=texts, before=st.integers(0, 900))
def test_what_is_agreed_is_a_shared_beginning_and_no_longer_one_exists(
    previous: str, current: str, before: int
) -> None:
    old, new = words(previous), words(current)
    agreed = agree(old, new, before_sample=before)
    forms = [[normal_form(word.text) for word in side] for side in (old, new)]
    assert forms[0][:agreed] == forms[1][:agreed]
    assert all(word.end_sample <= before for word in new[:agreed])
    if agreed < min(len(old), len(new)):
        assert forms[0][agreed] != forms[1][agreed] or new[agreed].end_sample > before
