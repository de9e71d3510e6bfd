import pytest

from services.translator.policies.align_att import AlignAtt
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Hypothesis
from services.translator.policies.units import common, continuation, units_of
from services.translator.policies.wait_k import WaitK
from services.translator.policies.whole_sentence import WholeSentence


def hypotheses(*texts: str, step: int = 1) -> list[Hypothesis]:
    """One for every so many words of the source."""
    return [Hypothesis(number * step, tuple(text.split())) for number, text in enumerate(texts, 1)]


@pytest.mark.parametrize(
    ("keeps", "held_back", "texts", "certain"),
    [
        (2, 0, ["a"], 0),
        (2, 0, ["a", "a b"], 1),
        (2, 0, ["a b c", "a b d"], 2),
        (2, 0, ["x b", "a b", "a b c"], 2),
        (3, 0, ["a b", "a b"], 0),
        (3, 0, ["x b", "a b", "a b c"], 0),
        (3, 0, ["a b c", "a x", "a b c"], 1),
        (2, 1, ["a b c", "a b d"], 2),
        (2, 2, ["a b c", "a b d"], 1),
        (2, 9, ["a b c", "a b d"], 0),
        (2, 0, ["", ""], 0),
    ],
)
def test_local_agreement_takes_what_translations_of_enough_words_share(
    keeps: int, held_back: int, texts: list[str], certain: int
) -> None:
    assert LocalAgreement(keeps, held_back).certain(hypotheses(*texts)) == certain


def test_local_agreement_counts_words_of_the_source_and_not_updates() -> None:
    policy = LocalAgreement(4, 0)
    assert policy.certain(hypotheses("a b", "a b", "a b")) == 0
    assert policy.certain(hypotheses("a b", "a b", step=3)) == 2
    # What lies further back than the words asked for does not matter, but for the nearest.
    assert policy.certain(hypotheses("x", "a b", "a b", step=3)) == 2


@pytest.mark.parametrize(
    ("margin", "num_words", "sources", "certain"),
    [
        (2, 5, (0, 1, 2), 3),
        (2, 5, (0, 3, 2), 1),
        (0, 5, (0, 4, 4), 3),
        (5, 5, (0, 1, 2), 0),
        (9, 5, (0, 1, 2), 0),
        (2, 5, (), 0),
    ],
)
def test_attention_to_the_newest_words_makes_text_uncertain(
    margin: int, num_words: int, sources: tuple[int, ...], certain: int
) -> None:
    units = tuple("abc"[: len(sources)])
    assert AlignAtt(margin).certain([Hypothesis(num_words, units, sources)]) == certain


@pytest.mark.parametrize(("k", "num_words", "certain"), [(3, 2, 0), (3, 5, 2), (1, 9, 4)])
def test_wait_k_follows_at_its_distance(k: int, num_words: int, certain: int) -> None:
    assert WaitK(k).certain([Hypothesis(num_words, ("a", "b", "c", "d"))]) == certain


def test_a_whole_sentence_is_waited_for() -> None:
    assert WholeSentence().keeps == 0
    assert WholeSentence().certain(hypotheses("a b", "a b")) == 0


def test_units_are_words_or_characters_with_the_space_before_them() -> None:
    assert units_of(" Olá,  mundo ", spaced=True) == (" Olá,", " mundo")
    assert units_of("你好 世界。", spaced=False) == ("你", "好", " 世", "界", "。")
    assert units_of("  ", spaced=True) == units_of("", spaced=False) == ()


@pytest.mark.parametrize(
    ("committed", "found", "behind"),
    [
        ("a b", "a b c d", 2),
        ("a b", "a x c d", 2),
        ("a b", "x a b c", 3),
        ("a b c", "b c d", 2),
        ("a b", "", 0),
        ("a b", "a", 1),
        ("", "a b", 0),
        ("x y", "a b c", 2),
    ],
)
def test_a_translation_goes_on_behind_what_is_nearest_to_what_was_said(
    committed: str, found: str, behind: int
) -> None:
    assert continuation(committed.split(), found.split()) == behind


def test_what_two_texts_share_is_counted() -> None:
    assert common("ab", "abc") == 2
    assert common("xb", "ab") == 0
