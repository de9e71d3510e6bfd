"""What the demo shows, without a mesh behind it."""

import io

import pytest
from rich.console import Console

from services.cli import console, demo
from services.cli.demo import Captions, Usage
from services.cli.live import HeardWord, Session, Transcript


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    shown = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, width=100))
    return shown


def words(text: str) -> list[HeardWord]:
    return [
        HeardWord(f" {word}", 0.5 * place, 0.1 * place, 0.2 * place)
        for place, word in enumerate(text.split(), start=1)
    ]


def session(transcript: Transcript) -> Session:
    return Session("toy", "en", transcript, 10.0, 11.0, 0.8, ("asr: was restarted",))


def test_captions_are_lines_that_end_with_sentences(screen: io.StringIO) -> None:
    captions, said = Captions(console.out), words("It was the best. It was")
    captions.show(said[:2])
    assert screen.getvalue() == ""
    captions.show(said[2:])
    assert screen.getvalue() == "   2.0 s  It was the best.\n"
    captions.flush()
    assert screen.getvalue().endswith("   3.0 s  It was\n")


def test_the_growing_line_shows_committed_words_plain_and_the_tail_dim() -> None:
    captions = Captions(console.out)
    captions.show(words("It was the best. It was"))
    shown = captions.growing(" maybe this")
    assert str(shown).strip() == "It was maybe this"
    [dim] = shown.spans
    assert (str(shown)[dim.start : dim.end], dim.style) == (" maybe this", "dim")


def test_the_numbers_of_a_session_are_in_the_table(screen: io.StringIO) -> None:
    before = Usage({"asr": 10.0, "vad": 1.0}, {"asr": 1, "vad": 1})
    after = Usage({"asr": 15.0, "vad": 2.0}, {"asr": 300_000_000, "vad": 80_000_000})
    said = Transcript(words=words("one two three"))
    console.out.print(demo.report("toy", session(said), before, after, factor=0.25))
    rows = {
        cells[1].strip(): cells[2].strip()
        for line in screen.getvalue().splitlines()
        if len(cells := line.split("│")) == 4
    }
    assert rows["words"] == "3"
    assert rows["word first seen after it was spoken"] == "p50 0.20 s, p95 0.29 s"
    assert rows["word final after it was spoken"] == "p50 0.40 s, p95 0.58 s"
    assert rows["model time per second of speech (RTF)"] == "0.25"
    assert rows["CPU time per second of audio"] == "0.60 s"
    assert rows["asr"] == "5.0 s CPU, 300 MB"
    assert rows["notice"] == "asr: was restarted"


def test_a_session_without_words_has_a_table_too(screen: io.StringIO) -> None:
    nothing = Usage({}, {})
    console.out.print(demo.report("toy", session(Transcript()), nothing, nothing, factor=None))
    assert "RTF" not in screen.getvalue()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0], (2.0, 2.0)), ([1.0, 3.0], (2.0, 2.9)), (list(range(101)), (50.0, 95.0))],
)
def test_percentiles_are_interpolated(values: list[float], expected: tuple[float, float]) -> None:
    assert demo.percentiles(values) == pytest.approx(expected)
