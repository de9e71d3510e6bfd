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
