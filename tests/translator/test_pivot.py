"""What is translated through English, and what comes of it."""

from dataclasses import replace

import pytest

from services.common.errors import DeviceError, InvalidRequestError
from services.translator.engines.pivot import Pivot
from services.translator.policies.align_att import AlignAtt
from services.translator.translator import Job, Look, Translation
from tests.translator.harness import POISON, Halves, pair, running, spans, tell, text_of

TEXTS = ["eins", "eins zwei", "zwei", "eins zwei drei", "drei vier"]


@pytest.mark.parametrize(
    ("said", "asked", "refusal"),
    [
        ("de>en", False, ""),
        ("en>pt", True, ""),
        ("de>pt", True, ""),
        ("de>pt", False, r"no model for de>pt, only: .*; TRANSLATOR_PIVOT would translate it"),
        ("de>it", True, r"no model for de>it, only: [^;]*$"),
        ("it>pt", False, r"no model for it>pt, only: [^;]*$"),
        ("en>de", True, r"no model for en>de, only: [^;]*$"),
        ("pt>en", True, r"no model for pt>en, only: [^;]*$"),
    ],
)
def test_a_pair_is_translated_if_it_is_there_or_both_halves_are_and_that_is_asked(
    said: str, asked: bool, refusal: str
) -> None:
    pivot = Pivot(Halves(), asked=asked)
    if not refusal:
        pivot.check(pair(said))
        return
    with pytest.raises(InvalidRequestError, match=refusal):
        pivot.check(pair(said))


@pytest.mark.parametrize(
    ("said", "text", "prefix", "made", "sources"),
    [
        ("de>en", "eins zwei", "", "zwei-en eins-en", (5, 0)),
        ("de>pt", "eins zwei", "", "eins-en-pt zwei-en-pt", (0, 5)),
        ("de>pt", "eins zwei", "um", "um zwei-en-pt", (0, 5)),
        ("fr>ja", "un", "", "un-en-ja", (0,)),
        ("de>pt", "", "", "", ()),
    ],
)
def test_a_text_goes_through_english_where_it_has_to(
    said: str, text: str, prefix: str, made: str, sources: tuple[int, ...]
) -> None:
    """Where its pieces come from is followed back through both."""
    engine = Halves(forces_prefix=True)
    [found] = Pivot(engine, asked=True).translate([Job(pair(said), text, prefix)])
    assert found.text == made
    assert tuple(look.source for look in found.looks) == sources
    assert [look.end for look in found.looks] == sorted({look.end for look in found.looks})
    assert [job.prefix for [job] in engine.calls] == [""] * (len(engine.calls) - 1) + [prefix]


def test_a_piece_that_looks_behind_everything_comes_from_the_last_one() -> None:
    class Short(Halves):
        def _translation(self, job: Job) -> Translation:
            made = super()._translation(job)
            return replace(made, looks=made.looks[:1])

    [found] = Pivot(Short(), asked=True).translate([Job(pair("de>pt"), "eins zwei")])
    assert found.looks == (Look(len("eins-en-pt"), 5),)


def test_of_an_engine_that_tells_nothing_nothing_is_told() -> None:
    [found] = Pivot(Halves(tells=False), asked=True).translate([Job(pair("de>pt"), "eins")])
    assert (found.text, found.looks) == ("eins-en-pt", ())


def test_a_batch_says_of_each_text_what_it_would_say_alone() -> None:
    """The halves share calls only as the engine's own buckets have it."""

    class Uneven(Halves):
        def bucket(self, job: Job) -> int:
            return len(job.text) if job.pair.source.tag == "en" else 0

    engine = Uneven()
    pivot = Pivot(engine, asked=True)
    jobs = [Job(pair("de>pt"), text) for text in TEXTS]
    assert len({pivot.bucket(job) for job in jobs}) == 1
    together = pivot.translate(jobs)
    assert [len(calls) for calls in engine.calls] == [5, 2, 2, 1]
    assert together == [pivot.translate([job])[0] for job in jobs]


def test_what_is_translated_once_shares_no_call_with_what_is_twice() -> None:
    pivot = Pivot(Halves(), asked=True)
    buckets = [pivot.bucket(Job(pair(said), "eins")) for said in ("de>en", "de>pt", "fr>ja")]
    assert buckets[0] != buckets[1] == buckets[2]


@pytest.mark.parametrize("half", ["en", "pt"])
async def test_a_half_that_fails_fails_its_stream_alone(half: str) -> None:
    pivot = Pivot(Halves(), asked=True)
    async with running(pivot) as batcher:
        with pytest.raises(DeviceError, match="a bad text"):
            await tell(batcher, pivot, [f"{POISON}-{half}"], pair=pair("de>pt"))
        assert text_of(await tell(batcher, pivot, ["eins."], pair=pair("de>pt"))) == " eins.-en-pt"


@pytest.mark.parametrize("forces_prefix", [False, True])
async def test_a_stream_goes_through_english(forces_prefix: bool) -> None:
    pivot = Pivot(Halves(forces_prefix=forces_prefix), asked=True)
    said = ["eins", "zwei", "drei", "vier", "fünf.", "sechs"]
    async with running(pivot) as batcher:
        events = await tell(batcher, pivot, said, pair=pair("de>pt"), policy=AlignAtt(1))
    assert text_of(events) == "".join(f" {word}-en-pt" for word in said)
    assert [word for first, end in spans(events) for word in range(first, end)] == [*range(6)]
    assert len(spans(events)) > 2
