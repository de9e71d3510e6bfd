"""What a stream makes of words, flushes and tails."""

from itertools import pairwise

import pytest

from services.common.errors import DeviceError, InvalidRequestError
from services.common.words import Word
from services.translator import stream
from services.translator.policies.align_att import AlignAtt
from services.translator.policies.local_agreement import LocalAgreement
from services.translator.policies.policy import Policy
from services.translator.policies.wait_k import WaitK
from services.translator.policies.whole_sentence import WholeSentence
from services.translator.stream import Stream, Tail
from services.translator.translator import Job, Translation
from tests.translator.harness import (
    EN_PT,
    POISON,
    WORD,
    Part,
    Shouting,
    commits,
    follow,
    running,
    spans,
    tails,
    tell,
    text_of,
)

SPEECH = "It was the best of times. Yes. It was the worst of times, it was. No"
POLICIES: list[Policy] = [
    LocalAgreement(2, 0),
    LocalAgreement(6, 2),
    AlignAtt(2),
    WaitK(3),
    WholeSentence(),
]


def covered_once(found: list[tuple[int, int]], num_words: int) -> bool:
    """Whether every word lies in the span of exactly one commit."""
    return [word for first, end in found for word in range(first, end)] == list(range(num_words))


@pytest.mark.parametrize("forces_prefix", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("at_once", [1, 3, 100])
async def test_every_word_is_translated_once_whatever_the_policy_and_the_pace(
    at_once: int, policy: Policy, forces_prefix: bool
) -> None:
    """P15: the end of a sentence says nothing again that was certain while it was said."""
    said = SPEECH.split()
    parts = [" ".join(said[at : at + at_once]) for at in range(0, len(said), at_once)]
    events = await follow(Shouting(forces_prefix=forces_prefix), *parts, policy=policy)
    assert text_of(events).replace("~", "").upper() == f" {SPEECH.upper()}"
    assert covered_once(spans(events), len(said))
    assert tails(events)[-1:] in ([], [""])


async def test_short_sentences_and_a_tail_without_an_end_are_translated_through_pauses() -> None:
    """P14: nothing is lost because it is short, and nothing is said again at the next pause."""
    events = await follow(Shouting(), "Yes. No. Thank you.", None, None, "And one", None, None)
    assert text_of(events) == " YES. NO. THANK YOU. AND one~"
    assert covered_once(spans(events), 6)


async def test_a_sentence_is_committed_when_it_ends_and_not_before_it_may() -> None:
    events = await follow(Shouting(), "Hello Mr.", "Smith.", policy=WholeSentence())
    assert [commit.text for commit in commits(events)] == [" HELLO MR. SMITH."]
    assert set(tails(events)) == {""}


async def test_words_that_change_nothing_are_said_to_have_been_taken_in() -> None:
    events = await follow(Shouting(), "Hello", "Mr.", "|Smith", policy=WholeSentence())
    reached = [event.through_sample for event in events if isinstance(event, Tail)]
    assert len(reached) == 2
    assert 0 < reached[0] < reached[1]
    assert commits(events)[0].end_sample == reached[1]


async def test_text_becomes_certain_while_its_sentence_is_said() -> None:
    events = await follow(Shouting(), *["the", "cat", "sat", "on"])
    assert [commit.text for commit in commits(events)] == [" THE", " CAT", " SAT on~"]
    assert spans(events) == [(0, 1), (1, 2), (2, 4)]


async def test_a_model_that_changes_its_mind_contradicts_nothing_that_is_certain() -> None:
    class Fickle(Shouting):
        def _translation(self, job: Job) -> Translation:
            texts = {
                "a": "one",
                "a b": "one two",
                "a b c": "one two three",
                "a b c d.": "first two three four.",
            }
            return Translation(texts[job.text])

    events = await follow(Fickle(), "a", "b", "c", "d.")
    assert text_of(events) == " one two three four."
    assert covered_once(spans(events), 4)


async def test_a_sentence_that_turns_out_to_have_ended_where_text_is_certain_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Later words may tell that it ended; what was committed by then reaches beyond."""
    lengths = iter([[], [], [], [1], [], []])
    monkeypatch.setattr(stream, "finished", lambda _texts, _language: next(lengths))
    events = await follow(Shouting(), "a", "b", "c", "d", policy=WaitK(1))
    assert len(commits(events)) >= 3
    assert covered_once(spans(events), 4)


async def test_the_tail_shows_what_translations_agree_on_and_is_told_when_it_changes() -> None:
    parts = ["one two|three four", "|three four", "three|four five", "four five six."]
    events = await follow(Shouting(), *parts, policy=LocalAgreement(6, 2))
    told = [event for event in events if isinstance(event, Tail)]
    assert " ONE" in "".join(tails(events)[:2])
    assert tails(events)[-1] == ""
    assert all(before != after for before, after in pairwise(told))
    assert "~" not in "".join(tails(events))


@pytest.mark.parametrize("policy", POLICIES)
async def test_guesses_are_not_translated_while_newer_words_wait(policy: Policy) -> None:
    """What is committed, and how soon, is the same; what is shown comes of it alone."""
    parts = ["one|two", "two|three four", "|three five", "three four five.|six", "|six seven"]
    made = {}
    for waits in (False, True):
        engine = Shouting()
        async with running(engine) as batcher:
            events = await tell(batcher, engine, parts, policy=policy, waits=waits)
        made[waits] = commits(events)
        told = [event for event in events if isinstance(event, Tail)]
        assert told[-1] == Tail("", 5 * WORD)
        assert all(before != after for before, after in pairwise(told))
        guesses = [job.text for job in engine.jobs if "six" in job.text]
        assert bool(guesses) is bool(policy.keeps and not waits)
    assert made[True] == made[False]


async def test_while_newer_words_wait_the_tail_is_of_the_words_alone() -> None:
    engine = Shouting()
    parts = ["one two three four|x", "five|x", "|x y", "six|x"]
    async with running(engine) as batcher:
        events = await tell(batcher, engine, parts, policy=WaitK(5), waits=True)
    assert tails(events) == ["", " ONE", " TWO", ""]
    assert "x" not in " ".join(job.text for job in engine.jobs).split()


async def test_what_may_change_is_never_committed() -> None:
    events = await follow(Shouting(), "one two|three four.", "|drei vier.", "three four.")
    assert text_of(events) == " ONE TWO THREE FOUR."


@pytest.mark.parametrize("forces_prefix", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
async def test_a_successor_says_what_its_predecessor_would_have_said(
    policy: Policy, forces_prefix: bool
) -> None:
    """From every commit; the words that came after it are said again."""
    translator = Shouting(forces_prefix=forces_prefix)
    said = SPEECH.split()
    async with running(translator) as batcher:
        events = await tell(batcher, translator, said, policy=policy)
        places = commits(events)
        assert len(places) >= 3
        for place in places:
            rest = said[place.through_sample // WORD :]
            resumed = await tell(batcher, translator, rest, policy=policy, resumed=place)
            assert commits(resumed) == places[places.index(place) + 1 :]


@pytest.mark.parametrize(
    "bad",
    [
        Word("", 0, WORD),
        Word(" a", WORD, 0),
        Word(" a", -1, WORD),
        Word(" a", 0, 1 << 60),
    ],
)
async def test_words_without_text_or_place_are_refused(bad: Word) -> None:
    translator = Shouting()
    async with running(translator) as batcher:
        with batcher.seat(live=True) as seat:
            opened = Stream(translator, batcher, seat, EN_PT, LocalAgreement(), state=None)
            with pytest.raises(InvalidRequestError, match="without text or without a place"):
                await opened.hear([bad], ())
            await opened.hear([Word(" a", 0, WORD)], ())
            with pytest.raises(InvalidRequestError, match="but 4000 is known"):
                await opened.hear([Word(" b", 0, 10)], ())


@pytest.mark.parametrize("policy", POLICIES)
async def test_nothing_is_made_of_words_that_are_blank(policy: Policy) -> None:
    model = Shouting()
    blank, guess = Word(" ", 0, WORD), Word("  ", WORD, 2 * WORD)
    async with running(model) as batcher:
        with batcher.seat(live=True) as seat:
            said = Stream(model, batcher, seat, EN_PT, policy, state=None)
            events = [*await said.hear([blank], [guess]), *await said.flush()]
            events += await said.hear([Word(" yes.", WORD, 2 * WORD)], [])
            events += await said.flush()
    assert text_of(events) == " YES."
    assert covered_once(spans(events), 2)
    assert "" not in [job.text for job in model.jobs]


async def test_a_text_that_breaks_the_model_fails_its_stream_alone() -> None:
    translator = Shouting()
    async with running(translator) as batcher:
        with pytest.raises(DeviceError, match="a bad text"):
            await tell(batcher, translator, [f"one {POISON}"])
        assert text_of(await tell(batcher, translator, ["one."])) == " ONE."


async def test_a_stream_without_words_says_nothing() -> None:
    parts: list[Part] = [None, "", "|", None]
    assert await follow(Shouting(), *parts) == []
