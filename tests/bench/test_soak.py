import random
from pathlib import Path

import psutil
import pytest

from bench.clients import Client, UnexpectedEndError
from bench.corpus import BYTES_PER_S, Clip
from bench.mesh import SERVICES, Served
from bench.soak import Ends, cut, draw, hold, logged, summary
from bench.tables import _soak
from bench.vitals import Reading, Vitals

CLIPS = [
    Clip("one", bytes(range(200)) * 6400, "", "en"),
    Clip("short", bytes(BYTES_PER_S), "", "en"),
]

NOWHERE = Served("http://127.0.0.1:1", "127.0.0.1:1", psutil.Process())


def reading(at_min: float, *, memory_mb: float = 60.0, tasks: int = 14) -> Reading:
    return Reading(at_min, {name: Vitals(memory_mb, 24, 10, tasks, 0) for name in SERVICES})


def ends() -> Ends:
    found = Ends()
    found.counts["uploads"]["finished"] += 2
    found.counts["sends what is broken"].update(["http 400", "http 400", "websocket 1008"])
    return found


def test_what_a_client_says_is_a_part_of_a_clip_between_two_samples() -> None:
    for seed in range(50):
        said = cut(CLIPS, random.Random(seed))
        whole = next(clip.pcm for clip in CLIPS if clip.id == said.id)
        first = whole.find(said.pcm)
        assert first >= 0
        assert first % 2 == len(said.pcm) % 2 == 0
        assert said.id == "short" or 5 <= said.audio_s <= 30


def test_the_same_seed_says_the_same() -> None:
    assert cut(CLIPS, random.Random("7-3")) == cut(CLIPS, random.Random("7-3"))


def test_what_the_services_hold_before_all_is_no_part_of_a_rise() -> None:
    rests = [reading(0, memory_mb=20), *(reading(3.0 * n, memory_mb=60 + n) for n in range(1, 6))]
    rises = summary(rests, ends())["rises"]
    assert rises["gateway"]["memory_mb"] == {"per_hour": pytest.approx(20), "error": 0.0}
    assert rises["asr"]["tasks"] == {"per_hour": 0.0, "error": 0.0}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (UnexpectedEndError("not refused: finished"), "UnexpectedEndError not refused: finished"),
        (ExceptionGroup("", [ConnectionResetError("gone")]), "ConnectionResetError gone"),
        (TimeoutError(), "TimeoutError "),
    ],
)
async def test_a_session_that_ends_otherwise_than_it_should_is_a_fault(
    error: Exception, fault: str
) -> None:
    async def fail(_client: Client) -> str:
        raise error

    found = Ends()
    await hold("uploads", fail, Client(NOWHERE, CLIPS[1], 1.0, random.Random(0)), found)
    assert found.faults == [f"uploads: {fault}"]
    assert found.counts == {"uploads": {"otherwise": 1}}


async def test_a_bug_of_the_bench_is_no_fault_of_the_mesh() -> None:
    async def stumble(_client: Client) -> str:
        raise KeyError

    with pytest.raises(KeyError):
        await hold("x", stumble, Client(NOWHERE, CLIPS[1], 1.0, random.Random(0)), Ends())


def test_sessions_are_counted_however_they_ended() -> None:
    found = ends()
    found.counts["uploads"]["otherwise"] += 1
    told = summary([reading(0), reading(3)], found)
    assert told["sessions"] == 6
    assert told["ends"]["sends what is broken"] == {"http 400": 2, "websocket 1008": 1}


def test_what_is_logged_as_an_error_and_what_is_no_log_at_all_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "voxmesh-x").mkdir()
    lines = [
        '{"event": "serving", "level": "info"}',
        '{"event": "health changed", "level": "warning"}',
        '{"event": "unexpected error", "level": "error"}',
        "Fatal Python error: Aborted",
    ]
    (tmp_path / "voxmesh-x" / "asr.log").write_text("\n".join(lines))
    assert logged(tmp_path) == [f"asr: {lines[2]}", f"asr: {lines[3]}"]


def test_a_run_is_told_in_tables() -> None:
    found = summary([reading(0, tasks=12), reading(3), reading(6), reading(9)], ends())
    options = {"name": "soak-x", "minutes": 9.0, "at_once": 4, "pace": 1.0}
    text = _soak(options | found)
    assert text.startswith("5 sessions in 9 minutes, 4 clients at once at pace 1, faults: 0.")
    assert "| gateway: memory, MB | 60.00 | 60.00 | 60.00 | +0.000 ± 0.000 |" in text
    assert "| gateway: tasks | 12 | 14 | 14 | +0.000 ± 0.000 |" in text
    assert "| sends what is broken | 3 | http 400 2, websocket 1008 1 |" in text


def test_the_picture_has_every_service(tmp_path: Path) -> None:
    rests = [reading(0), reading(3)]
    draw([reading(minute) for minute in range(4)], rests, ends().counts, "x", tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
