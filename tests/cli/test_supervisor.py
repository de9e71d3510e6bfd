"""The supervisor, with tiny Python programs as children."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.cli.supervisor import Child, Limits, StartError, Supervisor

QUICK = Limits(probe_s=0.02, start_s=10, backoff_s=0.02, max_backoff_s=0.05, stop_s=1.0)

SERVES = "import time\nREADY.touch()\ntime.sleep(60)"


class Programs:
    """Children that say they are ready by making a file, and note what happens in another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.history = folder / "history"
        self.history.touch()
        self.said: list[str] = []

    def child(self, name: str, program: str, *, log: bool = True) -> Child:
        ready = self.folder / f"{name}.ready"
        source = textwrap.dedent(f"""
            import os, signal, sys, time
            from pathlib import Path
            READY = Path({str(ready)!r})
            def note(what):
                with open({str(self.history)!r}, "a") as history:
                    history.write(f"{name} {{what}}\\n")
            def stop(*_):
                note("stop"); sys.exit(0)
            signal.signal(signal.SIGTERM, stop)
            note("start")
        """)

        async def is_ready() -> bool:
            return ready.exists()

        return Child(
            name,
            (sys.executable, "-c", source + program),
            is_ready,
            log=self.folder / f"{name}.log" if log else None,
        )

    def supervisor(self, *waves: Sequence[Child], limits: Limits = QUICK) -> Supervisor:
        return Supervisor(waves, report=self.said.append, limits=limits)

    @property
    def events(self) -> list[str]:
        return self.history.read_text().splitlines()


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


async def nothing() -> None:
    """Work that is done at once."""


def until(condition: Callable[[], bool]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def wait() -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 -- other processes set no event
                await asyncio.sleep(0.02)

    return wait


async def test_a_wave_starts_when_the_one_before_is_ready_and_stops_before_it(
    programs: Programs,
) -> None:
    slow = programs.child(
        "stage", "time.sleep(0.4); note('ready'); " + "READY.touch(); time.sleep(60)"
    )
    front = programs.child("front", "READY.touch(); time.sleep(60)")
    await programs.supervisor([slow], [front]).run(nothing)
    assert programs.events == [
        "stage start",
        "stage ready",
        "front start",
        "front stop",
        "stage stop",
    ]


async def test_the_work_starts_when_everybody_is_ready_and_its_error_comes_out(
    programs: Programs,
) -> None:
    async def fails() -> None:
        assert programs.events == ["one start"]
        raise ValueError("the work's own")

    with pytest.raises(ValueError, match="the work's own"):
        await programs.supervisor([programs.child("one", "READY.touch(); time.sleep(60)")]).run(
            fails
        )
    assert programs.events == ["one start", "one stop"]


async def test_a_child_that_crashes_is_started_again(programs: Programs) -> None:
    supervisor = programs.supervisor([programs.child("flaky", "READY.touch(); time.sleep(60)")])

    async def kill_it() -> None:
        before = supervisor.pids["flaky"]
        os.kill(before, signal.SIGKILL)
        await until(lambda: supervisor.pids.get("flaky", before) != before)()
        await until(lambda: programs.events.count("flaky start") == 2)()

    await supervisor.run(kill_it)
    assert supervisor.restarts == {"flaky": 1}
    assert programs.said == ["flaky ended with SIGKILL; starting it again"]


async def test_a_child_that_ends_without_an_error_is_started_again_too(programs: Programs) -> None:
    supervisor = programs.supervisor([programs.child("quitter", "READY.touch(); sys.exit(0)")])
    await supervisor.run(until(lambda: programs.events.count("quitter start") >= 3))
    assert programs.said[0] == "quitter ended with exit code 0; starting it again"


async def test_a_child_that_keeps_dying_while_starting_ends_the_mesh_with_its_last_words(
    programs: Programs,
) -> None:
    healthy = programs.child("healthy", "READY.touch(); time.sleep(60)")
    broken = programs.child("broken", "sys.exit('no model here')")
    with pytest.raises(
        StartError, match=r"broken ended 5 times .* exit code 1\n(.*\n)*  no model here"
    ):
        await programs.supervisor([healthy], [broken]).run(nothing)
    assert programs.events.count("broken start") == 5
    assert programs.events[-1] == "healthy stop"


async def test_a_child_that_is_never_ready_ends_the_mesh_at_the_deadline(
    programs: Programs,
) -> None:
    hangs = programs.child("hangs", "print('loading', flush=True); time.sleep(60)")
    limits = Limits(probe_s=0.02, start_s=0.5, stop_s=1)
    with pytest.raises(StartError, match=r"hangs was not ready within 0.5 s\n  loading"):
        await programs.supervisor([hangs], limits=limits).run(nothing)
    assert programs.events == ["hangs start", "hangs stop"]


async def test_a_child_that_ignores_the_request_to_stop_is_killed(programs: Programs) -> None:
    deaf = programs.child(
        "deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN); READY.touch(); time.sleep(60)"
    )
    supervisor = programs.supervisor([deaf], limits=Limits(probe_s=0.02, stop_s=0.3))
    started = time.monotonic()
    await supervisor.run(nothing)
    assert time.monotonic() - started < 5
    assert programs.said == ["deaf does not stop; killing it"]
    assert supervisor.pids == {}


async def test_a_signal_ends_the_work_and_stops_the_children_in_order(programs: Programs) -> None:
    async def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)  # the signal arrives during this

    await programs.supervisor(
        [programs.child("stage", "READY.touch(); time.sleep(60)")],
        [programs.child("front", "READY.touch(); time.sleep(60)")],
    ).run(interrupted)
    assert programs.events[-2:] == ["front stop", "stage stop"]


async def test_a_second_signal_kills_at_once(programs: Programs) -> None:
    deaf = programs.child(
        "deaf", "signal.signal(signal.SIGTERM, signal.SIG_IGN); READY.touch(); time.sleep(60)"
    )

    async def interrupted() -> None:
        loop = asyncio.get_running_loop()
        os.kill(os.getpid(), signal.SIGINT)
        loop.call_later(0.3, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)  # the signals arrive during this

    started = time.monotonic()
    limits = Limits(probe_s=0.02, stop_s=30)
    await programs.supervisor([deaf], limits=limits).run(interrupted)
    assert time.monotonic() - started < 10


async def test_a_socket_left_by_a_predecessor_is_removed_before_a_start(
    programs: Programs, tmp_path: Path
) -> None:
    stale = tmp_path / "stage.sock"
    stale.write_text("left behind")
    child = programs.child(
        "stage", f"note(os.path.exists({str(stale)!r})); READY.touch(); time.sleep(60)"
    )
    with_socket = Child(child.name, child.command, child.ready, log=child.log, socket=stale)
    await programs.supervisor([with_socket]).run(nothing)
    assert programs.events[:2] == ["stage start", "stage False"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = f"""
import asyncio, sys
from pathlib import Path
from services.cli.supervisor import Child, Supervisor
ready = Path({str(ready)!r})
async def is_ready(): return ready.exists()
child = Child("child", (sys.executable, "-c",
    "import os, sys, time; open(sys.argv[1] + '.new', 'w').write(str(os.getpid()));"
    "os.rename(sys.argv[1] + '.new', sys.argv[1]); time.sleep(60)", str(ready)), is_ready)
asyncio.run(Supervisor([[child]], report=print).run(lambda: asyncio.sleep(60)))
"""
    with subprocess.Popen([sys.executable, "-c", program]) as supervisor:
        deadline = time.monotonic() + 20
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.05)  # for the child to start
        child = psutil.Process(int(ready.read_text()))
        supervisor.kill()
    child.wait(timeout=5)
    assert not child.is_running()
