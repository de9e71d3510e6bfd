import json
from pathlib import Path

import pytest

from bench import tables

HOW = {
    "measured": "2026-11-22",
    "hardware": "2 cores",
    "command": "python -m bench.latency",
    "model": "base",
    "settings": {"ASR_STEP_MS": "500"},
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
    assert "with `ASR_STEP_MS=500`, measured on 2026-11-22" in after
    assert "| zeros: words lost | 1 |" in after
    assert "| none | 9.50 | 1 | 2 | 3 | 0 |" in after
    assert "old" not in after
    assert after.endswith("\nb\n<!-- growth -->\nNot measured yet.\n<!-- /growth -->\nc")
    assert tables.rendered(after) == after
