"""Keeps a few processes running: in order up, restarted when they die, in reverse order down.

It knows nothing of speech. Children come in waves: a wave starts when every child of the one before
has said that it is ready. Each child leads a session of its own, so that Ctrl-C in a terminal
reaches the supervisor alone and the order of stopping is ours.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.common.rpc import leaves

_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], Awaitable[bool]]
    """Whether it can do its work now. Asked over and over; answers or gives up within seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set on top of the supervisor's own."""
    log: Path | None = None
    """File that its output is appended to; unset: the supervisor's stderr."""
    socket: Path | None = None
    """Unix socket that it listens on: one left by a predecessor is removed before a start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a supervisor is, in seconds where nothing else is said."""

    probe_s: float = 0.1
    """Between two questions whether a child is ready."""
    start_s: float = 180.0
    """From the first start of a child until it is ready, restarts included."""
    start_deaths: int = 5
    """So many deaths before it was ever ready, within ``start_deaths_s``, and it is given up."""
    start_deaths_s: float = 30.0
    backoff_s: float = 0.2
    """Before the first restart; doubles with each further one."""
    max_backoff_s: float = 5.0
    steady_s: float = 30.0
    """A child that lived for so long starts again with the shortest back-off."""
    stop_s: float = 25.0
    """From SIGTERM to SIGKILL. Longer than a service drains."""


class StartError(Exception):
    """A child could not be brought up. The message says which, and what it wrote last."""


class _Kept:
    """A child and its current process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        """Set once it has been ready for the first time."""
        self.restarts = 0

    async def start(self) -> asyncio.subprocess.Process:
        child = self.child
        if child.socket is not None:
            child.socket.unlink(missing_ok=True)
        # -P: a folder called services where the user happens to stand is not ours.
        leash = (sys.executable, "-P", "-m", "services.cli.leash", str(os.getpid()))
        log = child.log.open("ab") if child.log is not None else None
        try:
            self.process = await asyncio.create_subprocess_exec(
                *leash,
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log or sys.stderr.fileno(),
                stderr=log or sys.stderr.fileno(),
                env={**os.environ, **child.environment},
                start_new_session=True,
            )
        finally:
            if log is not None:
                log.close()
        return self.process

    def send(self, signum: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(signum)

    def last_words(self) -> str:
        """What it wrote last, if that went to a file."""
        log = self.child.log
        if log is None or not log.exists():
            return ""
        lines = log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(["", *(f"  {line}" for line in lines)])


class Supervisor:
    """Runs children for as long as some work takes."""

    def __init__(
        self,
        waves: Sequence[Sequence[Child]],
        *,
        report: Callable[[str], None],
        limits: Limits | None = None,
    ) -> None:
        """Prepare; nothing starts before ``run``.

        Args:
            waves: Who starts together, first wave first.
            report: Is told in a line what happens to the children.
            limits: How patient to be.

        """
        self._waves = [[_Kept(child) for child in wave] for wave in waves]
        self._report = report
        self._limits = limits or Limits()
        self._interrupted = False

    @property
    def pids(self) -> dict[str, int]:
        """The process of each running child, by name."""
        return {
            kept.child.name: kept.process.pid
            for wave in self._waves
            for kept in wave
            if kept.process is not None and kept.process.returncode is None
        }

    @property
    def restarts(self) -> dict[str, int]:
        """How often each child was started again, by name."""
        return {kept.child.name: kept.restarts for wave in self._waves for kept in wave}

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Bring all children up, do the work, bring them down.

        SIGINT and SIGTERM end the work early, which is no error; a second one kills the children.

        Raises:
            StartError: A child did not come up. The others are stopped.
            Exception: What the work raised.

        """
        body = asyncio.create_task(self._supervise(work), name="supervisor")

        def interrupt() -> None:
            if self._interrupted:
                self._signal(signal.SIGKILL)
            self._interrupted = True
            body.cancel()

        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, interrupt)
        try:
            await body
        except asyncio.CancelledError:
            if not self._interrupted:
                raise
        except BaseExceptionGroup as group:
            raise next(leaves(group)) from None
        finally:
            body.cancel()
            await self._stop()
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)

    async def _supervise(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as tasks:
            keepers = []
            for wave in self._waves:
                keepers += [
                    tasks.create_task(self._keep(kept), name=f"supervisor.{kept.child.name}")
                    for kept in wave
                ]
                for kept in wave:
                    # No deadline here: the keeper has one, and ends the group when it passes.
                    await kept.ready.wait()
            await work()
            for keeper in keepers:
                keeper.cancel()

    async def _keep(self, kept: _Kept) -> None:
        limits, name = self._limits, kept.child.name
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.start_s
        deaths: deque[float] = deque(maxlen=limits.start_deaths)
        backoff_s = limits.backoff_s
        while True:
            born = loop.time()
            process = await kept.start()
            code = await self._watch(kept, process, deadline)
            now = loop.time()
            if now - born >= limits.steady_s:
                backoff_s = limits.backoff_s
            if not kept.ready.is_set():
                deaths.append(now)
                if len(deaths) == limits.start_deaths and now - deaths[0] < limits.start_deaths_s:
                    raise StartError(
                        f"{name} ended {len(deaths)} times while starting, at last with"
                        f" {_outcome(code)}{kept.last_words()}"
                    )
            self._report(f"{name} ended with {_outcome(code)}; starting it again")
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, limits.max_backoff_s)
            kept.restarts += 1

    async def _watch(
        self, kept: _Kept, process: asyncio.subprocess.Process, deadline: float
    ) -> int:
        """Wait until the process ends, and note when it is ready.

        Returns:
            Its exit code.

        Raises:
            StartError: It has never been ready, and the deadline for that has passed.

        """
        loop = asyncio.get_running_loop()
        while not kept.ready.is_set():
            with suppress(TimeoutError):
                return await asyncio.wait_for(process.wait(), self._limits.probe_s)
            if await kept.child.ready():
                kept.ready.set()
            elif loop.time() > deadline:
                raise StartError(
                    f"{kept.child.name} was not ready within {self._limits.start_s:g} s"
                    f"{kept.last_words()}"
                )
        return await process.wait()

    async def _stop(self) -> None:
        """End the children, last wave first: nobody loses what it still works with."""
        for wave in reversed(self._waves):
            for kept in wave:
                kept.send(signal.SIGTERM)
            waits = [kept.process.wait() for kept in wave if kept.process is not None]
            if not waits:
                continue
            try:
                await asyncio.wait_for(asyncio.gather(*waits), self._limits.stop_s)
            except TimeoutError:
                for kept in wave:
                    if kept.process is not None and kept.process.returncode is None:
                        self._report(f"{kept.child.name} does not stop; killing it")
                        kept.send(signal.SIGKILL)
                        await kept.process.wait()

    def _signal(self, signum: signal.Signals) -> None:
        for wave in self._waves:
            for kept in wave:
                kept.send(signum)


def _outcome(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
