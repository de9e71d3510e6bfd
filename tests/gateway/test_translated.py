import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from services.common.errors import (
    ClientLeftError,
    DeviceError,
    InvalidRequestError,
    OverloadedError,
)
from services.common.words import Word
from services.gateway.session import Session
from services.gateway.session_config import Diarization, Pace, SessionConfig, Task
from services.gateway.source_text import PAUSE_SAMPLES
from services.gateway.transcript import Transcript
from services.gateway.translation import TranslationPiece
from tests.gateway.fakes import (
    RATE,
    FakeAsr,
    FakeDiarizer,
    FakeTranslator,
    FakeVad,
    Heard,
    Mesh,
    Transcribed,
    running,
    silence,
    spans_of,
    words_at,
)
from tests.settings.serving import until
from voxmesh.asr.v1 import asr_pb2

PLACES = words_at(0.5, 1.0, 1.5, 4.0, 4.5, 5.0, 8.0, 8.5)
TEXTS = ["", "One", "two.", "Three", "four", "five", "six.", "Seven", "eight"][1:]
WORDS = [
    Word(f" {text}", word.first_sample, word.end_sample)
    for text, word in zip(TEXTS, PLACES, strict=True)
]
WHOLE = " ONE TWO. THREE FOUR FIVE SIX. SEVEN EIGHT"
FAST: dict[str, Any] = {
    "hedge_s": 0.5,
    "open_timeout_s": 1.0,
    "stall_s": 0.5,
    "translation_wait_s": 2.0,
}


async def paced(duration_s: float, *, factor: float = 20) -> AsyncIterator[bytes]:
    """Audio at many times the pace of speech."""
    async for block in silence(duration_s):
        yield block
        await asyncio.sleep(0.1 / factor)


async def said_in(
    mesh: Mesh,
    audio: AsyncIterator[bytes],
    *,
    during: Callable[[Session], object] | None = None,
    targets: Sequence[str] = ("pt",),
    **config: Any,
) -> Session:
    wanted = SessionConfig("s", "test", **{"language_code": "en", **config}, targets=tuple(targets))
    async with mesh.gateway.session(wanted) as session, asyncio.TaskGroup() as tasks:
        tasks.create_task(session.run(audio))
        if during is not None:
            task = during(session)
            if asyncio.iscoroutine(task):
                tasks.create_task(task)
    assert [word.text for word in session.transcript.words] == [word.text for word in WORDS]
    return session


class Detecting(FakeAsr):
    """Finds out what is spoken."""

    async def _answer(self, heard: Heard, certain: int, send: Transcribed) -> None:
        language = asr_pb2.LanguageDetected(language_code="fr", probability=0.9)
        await send(asr_pb2.TranscribeResponse(language=language))
        await super()._answer(heard, certain, send)


def detecting() -> tuple[FakeVad, FakeAsr, None, FakeTranslator]:
    return FakeVad(spans_of(WORDS)), Detecting(WORDS), None, FakeTranslator()


def stages() -> tuple[FakeVad, FakeAsr, None, FakeTranslator]:
    return FakeVad(spans_of(WORDS)), FakeAsr(WORDS), None, FakeTranslator()


def text_in(session: Session, target: str = "pt") -> str:
    return "".join(piece.text for piece in session.transcript.translations[target].pieces)


def covered(session: Session, target: str = "pt") -> list[str]:
    """The words in the spans of the pieces, in their order."""
    return [
        word.text
        for piece in session.transcript.translations[target].pieces
        for word in WORDS
        if piece.first_sample <= word.first_sample and word.end_sample <= piece.end_sample
    ]


def troubles(session: Session) -> list[tuple[str, str]]:
    return [(notice.stage, notice.code) for notice in session.transcript.notices]


async def heard(session: Session, audio_s: float) -> None:
    """Wait until so much audio is there."""

    def enough() -> bool:
        return session.transcript.received_sample >= audio_s * RATE

    await session.changed(1_000_000, timeout_s=30, due=enough)
    assert enough()


async def said(session: Session, num_words: int) -> None:
    """Wait until so many words are certain."""
    seen = -1
    async with asyncio.timeout(30):
        while len(session.transcript.words) < num_words:
            seen = await session.changed(seen)


@pytest.mark.parametrize("pace", Pace)
async def test_every_word_is_translated_once_into_every_language(pace: Pace) -> None:
    made = stages()
    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), targets=("pt", "de"), pace=pace)
    for target in ("pt", "de"):
        assert text_in(session, target) == WHOLE
        assert covered(session, target) == [word.text for word in WORDS]
        assert session.transcript.translations[target].tail == ""
    assert troubles(session) == []
    assert made[3].live == 0
    session.translate_into(["fr"])
    assert "fr" not in session.transcript.translations, "nothing is said any more"


async def test_the_tail_of_the_transcript_is_translated_too_and_replaced() -> None:
    made = stages()
    shown: list[str] = []

    async def watch(session: Session) -> None:
        seen = -1
        while not session.ended:
            seen = await session.changed(seen)
            shown.append(session.transcript.translations["pt"].tail)

    async with running(*made) as mesh:
        await said_in(mesh, paced(10), during=watch)
    assert any(shown)
    assert any(source.tail for source in made[3].sources)


@pytest.mark.parametrize(
    ("shown", "certain", "left"),
    [(" a b c", " a b", " c"), (" a b", " a b", ""), (" a x c", " a b", ""), ("", " a", "")],
)
def test_what_was_shown_behind_text_that_becomes_certain_stays(
    shown: str, certain: str, left: str
) -> None:
    translation = Transcript().translation("pt")
    translation.replace_tail(shown)
    translation.commit(TranslationPiece(certain, 0, RATE))
    assert translation.tail == left


async def test_what_is_translated_is_what_was_detected() -> None:
    made = detecting()
    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), language_code="")
    assert [opened.source_language_code for opened in made[3].opens] == ["fr"]
    assert text_in(session) == WHOLE


async def test_a_session_in_which_nobody_speaks_ends_without_a_translator() -> None:
    translator = FakeTranslator()
    async with running(FakeVad([]), FakeAsr([]), None, translator, translation_wait_s=60) as mesh:
        config = SessionConfig("s", "test", targets=("pt",))
        async with mesh.gateway.session(config) as session, asyncio.timeout(20):
            await session.run(silence(3))
    assert translator.opens == []
    assert troubles(session) == []


async def test_who_leaves_before_anything_is_heard_leaves_no_translator_waiting() -> None:
    translator = FakeTranslator()

    async def left() -> AsyncIterator[bytes]:
        await until(lambda: "translated.follow" in map(asyncio.Task.get_name, asyncio.all_tasks()))
        raise ClientLeftError
        yield b""

    async with running(FakeVad([]), FakeAsr([]), None, translator) as mesh:
        config = SessionConfig("s", "test", language_code="en", targets=("pt", "de"))
        with pytest.raises(ClientLeftError):
            async with mesh.gateway.session(config) as session:
                assert translator.live == 2
                await session.run(left())
        await until(lambda: translator.live == 0)


async def test_words_that_a_recogniser_translates_are_english() -> None:
    made = detecting()
    made[1].tasks = (asr_pb2.TASK_TRANSLATE,)
    async with running(*made) as mesh:
        await said_in(mesh, paced(10), language_code="", task=Task.TRANSLATE)
    assert [opened.source_language_code for opened in made[3].opens] == ["en"]


async def test_a_long_pause_ends_a_sentence_that_has_no_end() -> None:
    words = words_at(0.5, 1.0)
    translator = FakeTranslator()
    pieces: list[int] = []

    async def watch(session: Session) -> None:
        await heard(session, 7)
        while not pieces:
            pieces.append(len(session.transcript.translations["pt"].pieces))
            await asyncio.sleep(0.05)

    assert PAUSE_SAMPLES < 4 * RATE
    async with running(FakeVad(spans_of(words)), FakeAsr(words), None, translator) as mesh:
        config = SessionConfig("s", "test", language_code="en", targets=("pt",))
        async with mesh.gateway.session(config) as session, asyncio.TaskGroup() as tasks:
            tasks.create_task(session.run(paced(9)))
            tasks.create_task(watch(session))
    assert pieces == [1]
    assert translator.flushes == 1


async def test_nobody_finishes_the_sentence_of_somebody_else() -> None:
    turns = ((1, 0, 2 * RATE), (2, 7 * RATE // 2, 10 * RATE))
    made = FakeVad(spans_of(WORDS)), FakeAsr(WORDS), FakeDiarizer(turns), FakeTranslator()
    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), diarization=Diarization())
    texts = [piece.text for piece in session.transcript.translations["pt"].pieces]
    assert texts == [" ONE TWO.", " THREE", " FOUR FIVE SIX.", " SEVEN EIGHT"]


async def test_a_flush_answers_when_everything_is_translated() -> None:
    made = stages()
    found: list[str] = []

    async def flush(session: Session) -> None:
        await heard(session, 4.45)
        await session.flush()
        said = [word.text.upper() for word in session.transcript.words]
        assert text_in(session) == "".join(said)
        found.append(text_in(session))

    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), during=flush)
    assert found == [WHOLE[: len(found[0])]]
    assert text_in(session) == WHOLE


@pytest.mark.parametrize("second", [0.95, 4.3, 5.3, 8.7])
async def test_a_translator_that_dies_loses_no_word_and_repeats_none(second: float) -> None:
    made = stages()
    made[3].faults.once = {round(second * RATE): DeviceError("lost")}
    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(10))
    assert text_in(session) == WHOLE
    assert covered(session) == [word.text for word in WORDS]
    assert troubles(session) == [("translator", "DEGRADED"), ("translator", "RECOVERED")]


async def test_a_translator_that_falls_silent_is_replaced() -> None:
    made = stages()
    made[3].faults.hangs = {WORDS[1].end_sample}
    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(12, factor=6))
    assert text_in(session) == WHOLE
    assert ("translator", "DEGRADED") in troubles(session)


async def test_a_translator_that_leaves_is_followed_by_another() -> None:
    made = stages()

    async def leave(session: Session) -> None:
        await heard(session, 5)
        made[3].departure.leave()

    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(10), during=leave)
    assert len(made[3].opens) == 2
    assert text_in(session) == WHOLE
    assert troubles(session) == []


async def test_a_translator_of_another_kind_goes_on_behind_what_was_translated() -> None:
    made = stages()
    made[3].faults.once = {round(4.3 * RATE): DeviceError("lost")}

    async def change(session: Session) -> None:
        seen = -1
        while not text_in(session):
            seen = await session.changed(seen)
        made[3].format = "fake/2"

    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(14, factor=6), during=change)
    assert made[3].opens[-1].HasField("checkpoint") is False
    assert text_in(session) == WHOLE
    assert covered(session) == [word.text for word in WORDS]


async def test_a_dead_translator_keeps_no_word_waiting_and_catches_up_when_it_is_back() -> None:
    made = stages()
    transcribed: list[int] = []

    async def bring_back(session: Session) -> None:
        await heard(session, 9)
        transcribed.append(len(session.transcript.words))
        assert text_in(session) == ""
        assert mesh.translator_replica is not None
        await mesh.translator_replica.start()

    async with running(*made, **FAST) as mesh:
        assert mesh.translator_replica is not None
        await mesh.translator_replica.kill()
        session = await said_in(mesh, paced(16, factor=5), during=bring_back)
    assert transcribed[0] >= 6
    assert text_in(session) == WHOLE
    assert troubles(session) == [("translator", "DEGRADED"), ("translator", "RECOVERED")]


async def test_the_end_does_not_wait_for_a_translator_that_is_too_slow() -> None:
    made = stages()
    made[3].faults.gate.clear()
    async with running(*made, stall_s=60, translation_wait_s=0.3) as mesh, asyncio.timeout(30):
        session = await said_in(mesh, paced(10))
    assert text_in(session) == ""
    [notice] = session.transcript.notices
    assert "is not complete" in notice.message
    assert not notice.retryable


async def test_it_is_told_which_language_is_in_trouble() -> None:
    made = stages()
    made[3].faults.once = {round(4.3 * RATE): DeviceError("lost")}
    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(14, factor=6), targets=("pt", "de"))
    told = [(notice.code, notice.target) for notice in session.transcript.notices]
    assert told in ([("DEGRADED", target), ("RECOVERED", target)] for target in ("pt", "de"))


async def test_words_that_kill_every_translator_are_not_tried_for_ever() -> None:
    made = stages()
    made[3].faults.always = {WORDS[3].end_sample: DeviceError("deadly")}
    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(20, factor=8))
    assert text_in(session) == " ONE TWO."
    assert session.transcript.translations["pt"].tail == ""
    last = session.transcript.notices[-1]
    assert (last.stage, last.retryable) == ("translator", False)


async def test_a_pair_that_the_translator_lacks_is_refused_with_those_it_has() -> None:
    made = stages()
    config = SessionConfig("s", "test", language_code="en", targets=("pt", "xx"))
    async with running(*made) as mesh:
        with pytest.raises(InvalidRequestError, match="there are pt, de"):
            async with mesh.gateway.session(config):
                pass
        assert mesh.gateway.open_sessions == 0


async def test_a_pair_that_turns_out_to_be_lacking_costs_the_translation_alone() -> None:
    made = detecting()
    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), language_code="", targets=("xx", "pt"))
    assert text_in(session, "xx") == ""
    assert text_in(session) == WHOLE
    [notice] = session.transcript.notices
    assert "there are pt, de" in notice.message
    assert notice.target == "xx"
    assert not notice.retryable


async def test_a_translator_without_room_is_asked_again() -> None:
    made = stages()
    made[3].faults.at_open = [OverloadedError("no room")] * 8
    async with running(*made, **FAST) as mesh:
        session = await said_in(mesh, paced(16, factor=5))
    assert text_in(session) == WHOLE


async def test_without_a_translator_nothing_can_be_translated() -> None:
    config = SessionConfig("s", "test", language_code="en", targets=("pt",))
    async with running(FakeVad(spans_of(WORDS)), FakeAsr(WORDS)) as mesh:
        with pytest.raises(InvalidRequestError, match="no translator for pt"):
            async with mesh.gateway.session(config):
                pass
        session = await said_in(mesh, paced(10), targets=())
    assert dict(session.transcript.translations) == {}


async def test_languages_can_be_changed_while_somebody_speaks() -> None:
    made = stages()

    async def change(session: Session) -> None:
        await said(session, 3)
        session.translate_into(["de"])
        await said(session, 6)
        session.translate_into(["de", "pt"])

    async with running(*made) as mesh:
        session = await said_in(mesh, paced(10), during=change)
    assert text_in(session, "pt") == " ONE TWO. THREE SEVEN EIGHT"
    assert (
        text_in(session, "de") == " THREE FOUR FIVE SIX. SEVEN EIGHT"
        or text_in(session, "de") == " FOUR FIVE SIX. SEVEN EIGHT"
    )
    assert [opened.target_language_code for opened in made[3].opens] == ["pt", "de", "pt"]


async def test_a_language_that_is_wanted_again_is_said_behind_what_was_said_in_it() -> None:
    """The translation before is still being finished; what it says comes first."""
    made = stages()
    made[3].faults.gate.clear()

    async def change(session: Session) -> None:
        await said(session, 3)
        session.translate_into([])
        session.translate_into(["pt"])
        await said(session, 6)
        made[3].faults.gate.set()

    async with running(*made, stall_s=60) as mesh:
        session = await said_in(mesh, paced(10), during=change)
    assert text_in(session) == WHOLE
    assert covered(session) == [word.text for word in WORDS]


async def test_languages_are_not_changed_faster_than_they_are_finished() -> None:
    made = stages()
    made[3].faults.gate.clear()

    async def change(session: Session) -> None:
        await said(session, 3)
        with pytest.raises(InvalidRequestError, match="not finished yet"):
            for _ in range(40):
                session.translate_into([])
                session.translate_into(["pt"])
        made[3].faults.gate.set()

    async with running(*made, stall_s=60) as mesh:
        session = await said_in(mesh, paced(10), during=change)
    assert covered(session) == [word.text for word in WORDS][: len(covered(session))]


@pytest.mark.parametrize("targets", [[f"l{number}" for number in range(9)]])
async def test_a_session_has_so_many_translations_and_no_more(targets: list[str]) -> None:
    made = stages()
    async with running(*made) as mesh:
        with pytest.raises(InvalidRequestError, match="at most 8"):
            await said_in(mesh, paced(1), targets=targets)


async def test_words_that_end_together_are_told_apart_after_a_failure() -> None:
    """The end of a word is where a successor goes on: two with the same would be one."""
    same = [
        Word(" One", 0, RATE),
        Word(" two.", RATE // 2, RATE),
        Word(" Three.", RATE, RATE),
        Word(" Four", RATE, 2 * RATE),
    ]
    translator = FakeTranslator()
    translator.faults.once = {RATE + 2: DeviceError("lost")}
    asr = FakeAsr(same)
    async with running(FakeVad([(0, 2 * RATE)]), asr, None, translator, **FAST) as mesh:
        config = SessionConfig("s", "test", language_code="en", targets=("pt",))
        async with mesh.gateway.session(config) as session:
            await session.run(paced(4))
    assert text_in(session) == " ONE TWO. THREE. FOUR"
