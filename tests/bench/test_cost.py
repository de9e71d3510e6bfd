import os

import psutil
import pytest

from bench import cost
from bench.corpus import BYTES_PER_S, Clip
from bench.cost import Usage, load, summary
from bench.speakers import SPEAKERS
from tests.bench.serving import gateway


def usage(at_s: float, cpu_s: float, megabytes: float) -> Usage:
    return Usage(at_s, cpu_s, megabytes + 20, megabytes + 10, megabytes)


def test_cost_is_what_was_used_while_all_spoke_and_held_at_most() -> None:
    readings = [usage(10, 5, 60), usage(20, 9, 80), usage(30, 15, 70)]
    found = summary(10, usage(0, 1, 50), readings, [0.1, 0.2], 0.03)
    assert found["cores"] == 0.5
    assert found["cores_per_session"] == 0.05
    assert (found["uss_mb_empty"], found["uss_mb"], found["uss_mb_per_session"]) == (50, 80, 3)
    assert (found["rss_mb"], found["rss_mb_per_session"]) == (100, 3)
    assert found["answer_s"]["p50"] == pytest.approx(0.15)


def test_what_this_process_holds_is_read() -> None:
    read = Usage.of(psutil.Process(os.getpid()))
    assert read.cpu_s > 0
    assert read.rss_mb >= read.pss_mb >= read.uss_mb > 10


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_RAMP_S", 0.3)
    monkeypatch.setattr(cost, "_SETTLE_S", 0.2)
    monkeypatch.setattr(cost, "_SAMPLE_S", 0.5)


@pytest.mark.usefixtures("_soon")
async def test_so_many_sessions_are_held_and_each_has_to_hear_everything() -> None:
    clip = Clip("clip", bytes(3 * BYTES_PER_S), "", "en")
    async with gateway(0.5, 1.5) as mesh:
        found = await load(mesh, list(SPEAKERS.values()), clip, "w0 w1", 0.1)
        assert found["sessions"] == len(SPEAKERS)
        assert found["cores"] > 0
        assert len(found["readings"]) > 3
        with pytest.raises(ExceptionGroup) as failed:
            await load(mesh, [SPEAKERS["`/asr`, diff"]], clip, "w0 w1 w2", 0.1)
    assert failed.group_contains(RuntimeError, match="heard 'w0 w1' and not 'w0 w1 w2'")
