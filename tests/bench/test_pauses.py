from collections import Counter
from pathlib import Path

import pytest

from bench.corpus import Clip, Recording
from bench.pauses import PAUSES_S, Case, around, cases, judge, summarise

UTTERANCES = ["one two three four five six", "seven eight nine ten eleven twelve"]
WORDS = [utterance.split() for utterance in UTTERANCES]


@pytest.mark.parametrize(
    ("text", "lost", "added"),
    [
        ("one two three four five six seven eight nine ten eleven twelve", [], []),
        ("one two three four five eight nine ten eleven twelve", ["seven", "six"], []),
        ("one two three four five six six seven eight nine ten eleven twelve", [], ["six"]),
        ("two three four five six seven eight nine ten eleven", [], []),
        ("one two three four five six so seven eight nine ten eleven twelve", [], ["so"]),
        ("one two three four five sicks seven eight nine ten eleven twelve", [], []),
        ("one two three four five six save one eight nine ten eleven twelve", [], []),
        ("one two three four fife seven eight nine ten eleven twelve", [], []),
        ("one two three four fife nine ten eleven twelve", ["eight", "seven", "six"], []),
    ],
    ids=[
        *("right", "lost", "repeated", "lost elsewhere", "added"),
        *("misheard", "misheard as two", "two misheard as one", "misheard and lost"),
    ],
)
def test_words_around_a_pause_are_told_from_the_others(
    text: str, lost: list[str], added: list[str]
) -> None:
    [pause] = around(WORDS, text.split())
    assert pause.lost == Counter(lost)
    assert pause.added == Counter(added)


def case(kind: str = "zeros") -> Case:
    clips = tuple(Clip(f"u{number}", b"", text, "de") for number, text in enumerate(UTTERANCES))
    return Case(f"1-{kind}", kind, clips, (5.0,))


def test_what_is_wrong_without_the_pause_too_is_not_its_doing() -> None:
    plain = "one two three four five seven eight nine ten eleven twelve"
    paused = "one two three four five eight nine so ten eleven twelve"
    [pause] = judge(case(), paused, plain)
    assert pause["lost"] == ["seven"]
    assert pause["added"] == ["so"]
    assert (pause["after"], pause["pause_s"]) == ("u0", 5.0)


def test_the_summary_counts_by_kind_and_length() -> None:
    heard = "one two three four five six eight nine ten eleven twelve"
    pauses = judge(case("noise"), heard, " ".join(UTTERANCES))
    rows = {(row["kind"], row["pause_s"]): row for row in summarise(pauses)}
    assert len(rows) == 2 * len(PAUSES_S)
    assert rows["noise", 5.0] == {
        "kind": "noise",
        "pause_s": 5.0,
        "pauses": 1,
        "lost": 1,
        "added": 0,
    }
    assert rows["zeros", 5.0]["pauses"] == 0


def test_every_length_of_pause_meets_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Recording, "clip", lambda recording: Clip(recording.id, b"\0" * 320, "", "en")
    )
    corpus = [
        Recording(f"{speaker}-{number}", Path("x"), "", "en", speaker=speaker)
        for speaker in "ab"
        for number in range(8)
    ]
    found = cases(corpus)
    assert [one.id for one in found] == [
        *("a-none", "a-zeros", "a-noise"),
        *("b-none", "b-zeros", "b-noise"),
    ]
    for one in found:
        expected = [0.0] if one.kind == "none" else sorted(PAUSES_S)
        assert sorted(set(one.pauses_s)) == expected
    assert found[1].pauses_s != found[2].pauses_s != found[4].pauses_s
