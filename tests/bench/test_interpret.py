from typing import Any

import pytest

from bench import interpret
from bench.corpus import Clip
from bench.interpret import watch
from bench.mesh import Served
from services.cli.live import HeardPiece, HeardWord, Session, Transcript


async def test_a_word_is_late_to_the_piece_that_covers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spoken(_target: str, _recording: object, **asked: Any) -> Session:
        assert (asked["language"], asked["translate_into"]) == ("en", "pt")
        transcript = Transcript()
        words = [HeardWord(f" w{number}", float(number), 0.5, 1.5) for number in (1, 2, 3)]
        transcript.words += words
        asked["on_captions"](transcript, words)
        transcript.translated_tail = " a b x"
        asked["on_translated"](transcript, [])
        transcript.translated_tail = " c"
        asked["on_translated"](transcript, [HeardPiece(" a b", 2.0, 2.0)])
        transcript.translated_tail = ""
        asked["on_translated"](transcript, [HeardPiece(" c", 3.0, 2.0)])
        return Session("base", "en", transcript, 3.0, 3.0, 0.1, ())

    monkeypatch.setattr(interpret, "converse", spoken)
    mesh = Served("http://x", "x:1", None)  # type: ignore[arg-type]  # nobody asks for its process
    watched = await watch(mesh, Clip("1", bytes(2), "w1 w2 w3", "en"), "pt")
    assert watched.text == " w1 w2 w3"
    assert watched.shown.words == ["a", "b", "c"]
    assert watched.shown.erased == 1
    assert watched.after_commit_s == pytest.approx([0, 0, 0], abs=0.5)
    assert watched.after_word_s == pytest.approx([1.5] * 3, abs=0.5)
    assert len(watched.committed_s) == 3
