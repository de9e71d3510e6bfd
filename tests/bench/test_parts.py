import asyncio
import json
import time
from pathlib import Path

from bench.cost import in_parts
from bench.parts import LOOP, THREADS, Clock


async def compute(duration_s: float) -> int:
    for _ in range(10):
        until = time.thread_time() + duration_s / 10
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0)
    return 7


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("as it should")


def test_time_is_that_of_the_task_that_used_it_and_the_rest_is_the_loops(tmp_path: Path) -> None:
    async def main() -> None:
        clock = Clock()
        asyncio.get_running_loop().set_task_factory(clock.factory)
        named = asyncio.create_task(compute(0.2), name="named")
        async with asyncio.timeout(30):
            assert await asyncio.create_task(compute(0.1)) == 7
            assert await named == 7
            failed = (await asyncio.gather(fail(), return_exceptions=True))[0]
            assert isinstance(failed, ValueError)
        waiting = asyncio.create_task(asyncio.Event().wait(), name="waiting")
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        clock.save(tmp_path / "parts.json")

    asyncio.run(main())
    used = json.loads((tmp_path / "parts.json").read_text())
    assert set(used) >= {"named", "compute", "fail", "waiting", LOOP, THREADS}
    assert 0.05 < used["compute"] < used["named"] < 0.25
    assert used["waiting"] < 0.05


def test_tasks_are_gathered_by_what_they_do() -> None:
    used = {"vad.write": 1.0, "wlk.receive": 1.0, "deepgram.show": 1.0, LOOP: 4.0, "other": 3.0}
    assert [(row["cpu_ms_per_audio_s"], row["percent"]) for row in in_parts(used, 1000)] == [
        *((4.0, 40.0), (3.0, 30.0), (2.0, 20.0), (1.0, 10.0)),
    ]
    assert [row["part"].partition(":")[0] for row in in_parts(used, 1000)] == [
        *("event loop", "everything else", "protocols", "send to the VAD"),
    ]
