from services.common.words import Word
from services.gateway.route import End, FlushMark
from services.gateway.source_text import PAUSE_SAMPLES, Excerpt, SourceText, Spoken, Text
from services.gateway.transcript import Transcript

RATE = 16_000


def word(number: int, *, speaker: int = 0, text: str = "") -> Word:
    """A word of half a second, one for each second."""
    place = number * RATE
    return Word(text or f" w{number}", place, place + RATE // 2, speaker=speaker)


def read(excerpt: Excerpt, replay_sample: int = 0, flushed_sample: int = -1) -> list[Text]:
    """All that a reader is told now."""
    reader = excerpt.read(replay_sample, replay_sample, flushed_sample)
    told: list[Text] = []
    while (piece := reader.next()) is not None:
        told.append(piece)
        if isinstance(piece, End):
            break
    return told


def texts(told: list[Text]) -> list[list[str] | str]:
    """Words of messages, ``flush`` and ``end``."""
    return [
        [one.text for one in piece.words]
        if isinstance(piece, Spoken)
        else "flush"
        if isinstance(piece, FlushMark)
        else "end"
        for piece in told
    ]


def test_a_pause_is_no_pause_while_something_may_have_been_said_in_it() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    excerpt = Excerpt(text)
    transcript.commit([word(1)])
    transcript.replace_tail([word(2)])
    transcript.settle(2 * RATE + PAUSE_SAMPLES)
    assert text.follow()
    assert texts(read(excerpt)) == [[" w1"]]
    transcript.replace_tail([])
    assert text.follow()
    assert texts(read(excerpt)) == [[" w1"], "flush"]
    assert not text.follow(), "a pause is said once"


def test_marks_stand_where_they_were_made_whenever_the_log_is_read() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    excerpt = Excerpt(text)
    transcript.commit([word(1, speaker=1), word(2, speaker=1), word(3, speaker=2)])
    text.follow()
    text.add_mark()
    transcript.commit([word(4, speaker=2)])
    text.follow()
    text.complete()
    told = read(excerpt)
    assert texts(told) == [[" w1", " w2"], "flush", [" w3"], "flush", [" w4"], "end"]
    first = told[0]
    assert isinstance(first, Spoken)
    assert texts(read(excerpt, first.end_sample)) == texts(told)[1:]
    assert texts(read(excerpt, first.end_sample, first.end_sample)) == texts(told)[2:]


def test_many_words_come_in_several_messages_and_the_tail_with_the_last() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    excerpt = Excerpt(text)
    transcript.commit([word(number) for number in range(250)])
    transcript.replace_tail([word(251)])
    text.follow()
    told = [piece for piece in read(excerpt) if isinstance(piece, Spoken)]
    assert [len(piece.words) for piece in told] == [100, 100, 50]
    assert [bool(piece.tail) for piece in told] == [False, False, True]


def test_a_tail_that_changes_is_said_without_words() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    reader = Excerpt(text).read(0, 0, -1)
    transcript.commit([word(1)])
    text.follow()
    assert isinstance(reader.next(), Spoken)
    for tail in ([word(2)], [word(2, text=" other")], []):
        transcript.replace_tail(tail)
        text.follow()
        assert reader.next() == Spoken((), tuple(tail), word(1).end_sample)
        assert reader.next() is None


def test_an_excerpt_has_the_words_between_its_beginning_and_its_end() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    transcript.commit([word(1)])
    text.follow()
    text.add_mark()
    excerpt = Excerpt(text)
    transcript.commit([word(2), word(3)])
    transcript.replace_tail([word(4)])
    text.follow()
    excerpt.end()
    transcript.commit([word(4)])
    text.follow()
    assert texts(read(excerpt, excerpt.first_sample)) == [[" w2", " w3"], "end"]
    late = Excerpt(text)
    late.end()
    assert texts(read(late, late.first_sample)) == ["end"]
    begun_late = SourceText(transcript)
    begun_late.follow()
    assert begun_late.end_sample == word(4).end_sample
    assert read(Excerpt(begun_late), word(4).end_sample) == []


def test_words_that_end_together_have_places_of_their_own() -> None:
    transcript = Transcript()
    text = SourceText(transcript)
    excerpt = Excerpt(text)
    transcript.commit([Word(" a", 0, RATE), Word(" b", 0, RATE), Word(" c", 0, RATE // 2)])
    text.follow()
    [spoken] = read(excerpt)
    assert isinstance(spoken, Spoken)
    ends = [one.end_sample for one in spoken.words]
    assert ends == [RATE, RATE + 1, RATE + 2]
    assert texts(read(excerpt, ends[1])) == [[" c"]]
