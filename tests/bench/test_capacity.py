from pathlib import Path
from typing import Any

import pytest

from bench.capacity import carried, draw


def level(sessions: int, p95: float, **other: Any) -> dict[str, Any]:
    shown = {"p50": p95 / 2, "p95": p95}
    return {
        "sessions": sessions,
        "final_s": shown,
        "first_shown_s": shown,
        "wer_percent": 10.0,
        "cpu_s_per_audio_s": 0.3,
        "cores_used": 0.3 * sessions,
        "refused": 0,
        "failures": [],
        **other,
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (level(4, 2.9), True),
        (level(4, 3.1), False),
        (level(4, 2.9, refused=1), False),
        (level(4, 2.9, failures=["UNAVAILABLE: gone"]), False),
        (level(4, 2.9, final_s={}), False),
    ],
    ids=["in time", "late", "refused", "failed", "silent"],
)
def test_a_level_is_carried_when_all_are_served_in_time(
    found: dict[str, Any], expected: bool
) -> None:
    assert carried(found, 3.0) is expected


def test_the_curve_is_drawn_without_levels_that_heard_nothing(tmp_path: Path) -> None:
    levels = [level(1, 1.0), level(2, 2.0), level(4, 9.0, final_s={})]
    draw(levels, 3.0, "base", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
