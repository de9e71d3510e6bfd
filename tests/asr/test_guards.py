from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.asr.guards import Verdict, heard_words, judge, loop_start, without_loops
from services.asr.recognizer import Hypothesis
from services.common.timeline import samples
from services.common.words import Word

REFRAIN = "whosoever thou art thou he who repeated poetry but now and my lady heard him "


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(f" {w}", n * 100, n * 100 + 80) for n, w in enumerate(text.split()))


def said(text: str, *, no_speech: float = 0.0, avg_log: float = -0.3) -> Hypothesis:
    return Hypothesis(words(text), "en", 1.0, no_speech, avg_log)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", None),
        ("no", None),
        ("no no no no no no no", None),  # people say that
        ("no no no no no no no no", 1),
        ("oh well no no no no no no no no", 3),
        ("No no, no NO no no no no no", None),  # "no," is no "no"
        ("you know " * 3, None),
        ("you know " * 4, 2),
        ("well you know " + "you know " * 4, 3),
        ("know " + "you know " * 4, 2),
        ("a b c d e f g h " * 2, None),
        ("a b c d e f g h " * 3, 8),
        ("x a b c d e f g h " + "a b c d e f g h " * 2 + "a b", 9),
        ("a b c d e f g h i " * 4, None),  # nine words are a refrain
        ("no " * 20 + "yes", None),  # it got out of the loop
    ],
)
def test_a_loop_is_found_where_its_first_round_ends(text: str, start: int | None) -> None:
    assert loop_start(words(text)) == start


@given(
    cycle=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True),
    rounds=st.integers(8, 12),
    before=st.lists(st.sampled_from("xyz"), max_size=20, unique=True),
)
def test_every_loop_is_found_behind_whatever_was_said_before(
    cycle: list[str], rounds: int, before: list[str]
) -> None:
    assert loop_start(words(" ".join([*before, *cycle * rounds]))) == len(before) + len(cycle)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("no no no no no no no", "no no no no no no no"),
        ("oh well " + "no " * 30, "oh well no"),
        ("no " * 20 + "yes", "no yes"),
        ("replied he " * 9 + "replied " + "replied he " * 3, "replied he"),
        ("well " + "you know " * 5 + "it is " + "so so " * 5, "well you know it is so"),
        ("you " + "know you " * 5 + "see", "you know see"),
        (REFRAIN * 2, REFRAIN * 2),
    ],
)
def test_of_each_loop_one_round_is_kept_and_of_all_else_every_word(text: str, kept: str) -> None:
    assert [word.text.strip() for word in without_loops(words(text))] == kept.split()


@pytest.mark.parametrize(
    ("hypothesis", "num_samples", "verdict"),
    [
        (said(""), samples(5), Verdict.SOUND),
        (said("", no_speech=1.0, avg_log=-3), samples(5), Verdict.SOUND),
        (said("to be"), samples(1), Verdict.SOUND),
        (said("to be", no_speech=0.61, avg_log=-1.01), samples(1), Verdict.NO_SPEECH),
        (said("to be", no_speech=0.6, avg_log=-1.01), samples(1), Verdict.SOUND),
        (said("to be", no_speech=0.99, avg_log=-1.0), samples(1), Verdict.SOUND),
        (said(REFRAIN), samples(20), Verdict.SOUND),
        (said(REFRAIN * 2), samples(20), Verdict.REPETITION),
        (said(f"he said {REFRAIN} and {REFRAIN}"), samples(20), Verdict.REPETITION),
        (said(f"{REFRAIN} {REFRAIN} and was still"), samples(20), Verdict.SOUND),
        (said("it was the age of wisdom it was the age of folly"), samples(9), Verdict.SOUND),
        (said(f"he said {REFRAIN * 6} and was still"), samples(20), Verdict.REPETITION),
        (said("..."), samples(1), Verdict.NO_SPEECH),
        (said(". " * 60), samples(5), Verdict.NO_SPEECH),
        (said("- 5 %"), samples(1), Verdict.SOUND),
        (said("no " * 8), samples(9), Verdict.REPETITION),
        (said("no " * 8, no_speech=0.9, avg_log=-2), samples(9), Verdict.NO_SPEECH),
        (said("a b c d e f g h i j k"), samples(1), Verdict.SOUND),
        (said("a b c d e f g h i j k l"), samples(1), Verdict.RATE),
        (said("a b c"), samples(0.1), Verdict.SOUND),
    ],
)
def test_a_decoding_is_judged_by_what_it_says_of_itself(
    hypothesis: Hypothesis, num_samples: int, verdict: Verdict
) -> None:
    assert judge(hypothesis, num_samples) is verdict


@pytest.mark.parametrize(
    ("starts_s", "heard"),
    [
        ([], 0),
        ([0.0, 1.0, 1.9], 3),
        ([0.0, 1.0, 1.92], 2),
        ([0.0, 1.92, 1.95, 1.98, 2.0, 2.0], 1),
        # What comes behind a word without room has none either.
        ([1.95, 1.0], 0),
    ],
)
def test_what_is_said_after_the_audio_has_ended_was_not_heard(
    starts_s: list[float], heard: int
) -> None:
    said = Hypothesis(
        tuple(Word(" so", samples(start), samples(start) + 1) for start in starts_s),
        *("en", 1.0, 0.0, -0.1),
    )
    assert heard_words(said, samples(2)).words == said.words[:heard]


@pytest.mark.parametrize(
    ("prompt", "tokens", "verdict"),
    [
        (range(10), [3, 4, 5, 6, 7, 8, 99], Verdict.ECHO),
        (range(10), [4, 5, 6, 7, 8, 9], Verdict.ECHO),
        (range(10), [0, 1, 2, 3, 4, 5, 50, 51], Verdict.ECHO),
        # Too little of it, or later on, is what people say.
        (range(10), [5, 6, 7, 8, 9, 50, 51], Verdict.SOUND),
        (range(10), [50, 3, 4, 5, 6, 7, 8, 9], Verdict.SOUND),
        (range(10), [5, 6, 7], Verdict.SOUND),
        (range(5), [0, 1, 2, 3, 4], Verdict.SOUND),
        ((), [0, 1, 2, 3, 4, 5, 6], Verdict.SOUND),
    ],
)
def test_a_text_that_begins_as_its_prompt_is_an_echo(
    prompt: Sequence[int], tokens: list[int], verdict: Verdict
) -> None:
    heard = [Word(f" {n}", n * 4000, n * 4000 + 3000, 0.9, (n,)) for n in tokens]
    hypothesis = Hypothesis(tuple(heard), "en", 1.0, 0.0, -0.3)
    assert judge(hypothesis, samples(10), tuple(prompt)) is verdict
