"""Decodes the windows of many streams together, off the event loop.

A stream has at most one window waiting here, and lives with being decoded less often: the step
between two decodings follows from what they are measured to cost, and a stream for which there is
no room is refused. Under load the cadence slows, and nothing is dropped.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from services.asr.load import Limits, Load, Utilisation
from services.asr.recognizer import Hypothesis, Recognizer, Window
from services.asr.turns import Seat, Turn, Turns
from services.common import telemetry
from services.common.errors import SaturatedError
from services.common.timeline import samples

_ADAPT_EVERY_S = 0.5
_PROBE = object()
"""The bucket of a probe, which is like no other window."""


@dataclass(slots=True, eq=False)
class _Job(Turn):
    keeps_pace: bool
    """Whether it is a live stream's that is not ahead of its pace: such do not wait by choice."""
    done: "asyncio.Future[Hypothesis]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """What became of a batch."""

    hypotheses: list[Hypothesis]
    error: Exception | None
    took_s: float


class Scheduler:
    """One model, shared by the streams of a replica. ``run`` does the work and never returns."""

    def __init__(self, recognizer: Recognizer, limits: Limits) -> None:
        self._recognizer = recognizer
        self._limits = limits
        self._load = Load(limits)
        self._utilisation = Utilisation(limits.workers, time.perf_counter())
        self._seats: set[Seat] = set()
        self._step_s = limits.min_step_s
        self._fair_step_s = limits.min_step_s
        # Bounded by the slots: a stream waits here with one window.
        self._turns: Turns[_Job] = Turns()
        self._arrived = asyncio.Condition()
        self._succeeded_s = float("-inf")

    async def run(self) -> None:
        """Decode until cancelled."""
        with ThreadPoolExecutor(self._limits.workers, "asr.model") as pool:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._adapt(), name="asr.scheduler.adapt")
                for number in range(self._limits.workers):
                    tasks.create_task(self._work(pool), name=f"asr.scheduler.{number}")

    @property
    def idle_s(self) -> float:
        """Seconds since the model last answered."""
        return time.perf_counter() - self._succeeded_s

    @property
    def step_samples(self) -> int:
        """New audio that makes a live stream be decoded again, as things stand."""
        return samples(self._step_s)

    @contextmanager
    def seat(self, *, live: bool, moved: bool = False) -> Iterator[Seat]:
        """Admit a stream for the length of the ``with`` block.

        Args:
            live: Whether somebody waits for its words; files are decoded when nobody does.
            moved: Whether it was admitted before, elsewhere: then it is not refused.

        Raises:
            SaturatedError: With one more live stream all would be decoded too seldom. A replica
                on which nobody speaks takes one in any case, and so learns what it costs now.

        """
        now_s = time.perf_counter()
        speaking = self._speaking(now_s)
        if live and speaking and not moved and not self._load.has_room(speaking + 1):
            raise SaturatedError(
                f"one live stream more than the {speaking} that speak would have each of them "
                f"decoded every {self._load.admitted_step_s(speaking + 1):.1f} s, after windows "
                f"waited for {self._load.wait_s:.1f} s already"
            )
        seat = Seat(live, now_s)
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)

    async def recognize(self, window: Window, seat: Seat, *, final: bool = False) -> Hypothesis:
        """Decode a stream's window, in a batch with whatever else is due.

        Args:
            window: What to decode.
            seat: The stream's.
            final: Whether somebody waits for the last words before a pause.

        Raises:
            DeviceError: The model failed for this window, also when it was given it alone.

        """
        now_s = time.perf_counter()
        deadline_s = seat.ask(now_s, step_s=self._fair_step_s, final=final)
        # As things stand now: the step may have shrunk a little when its turn comes.
        keeps_pace = seat.live and deadline_s <= now_s + self._fair_step_s
        bucket = self._recognizer.bucket(window)
        seat.waiting = True
        try:
            return await self._decoded(
                _Job(window, bucket, seat.live, now_s, deadline_s, keeps_pace)
            )
        finally:
            seat.waiting = False

    async def probe(self, window: Window) -> Hypothesis:
        """Decode a window that is no stream's: alone, before all others, and without measuring it.

        Raises:
            DeviceError: The model failed.

        """
        now_s = time.perf_counter()
        return await self._decoded(_Job(window, _PROBE, True, now_s, float("-inf"), False))

    async def measure(self, window: Window) -> None:
        """Learn from a full live window, while there is nothing else to do, what to expect.

        Raises:
            DeviceError: The model failed.

        """
        began_s = time.perf_counter()
        await self.probe(window)
        self._load.measured(time.perf_counter() - began_s)

    async def _decoded(self, job: _Job) -> Hypothesis:
        async with self._arrived:
            self._turns.add(job)
            self._arrived.notify()
        try:
            return await job.done
        finally:
            self._turns.drop(job)

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._turns)
                batch = self._take()
            try:
                await self._decode(batch, pool)
            finally:
                self._utilisation.change(time.perf_counter(), by=-1)

    def _take(self) -> list[_Job]:
        """The most urgent window, and those that go with it."""
        now_s = time.perf_counter()
        alike = self._turns.like_next(now_s)
        # Workers that have nothing to do share what there is.
        most = -(-len(alike) // self._utilisation.idle)
        if alike[0].live:
            self._load.gathered(len(alike), self._turns.live)
            most = min(most, self._limits.max_batch)
        else:
            most = min(most, self._load.files_at_once(self._speaking(now_s)))
        batch = alike[:most]
        self._turns.take(batch, now_s)
        self._utilisation.change(now_s, by=1)
        for job in batch:
            wait_s = now_s - job.asked_s
            telemetry.STEP_WAIT_SECONDS.labels("asr").observe(wait_s)
            if job.keeps_pace:
                self._load.waited(wait_s)
        return batch

    async def _decode(self, batch: Sequence[_Job], pool: ThreadPoolExecutor) -> None:
        windows = [job.window for job in batch]
        run = await asyncio.get_running_loop().run_in_executor(pool, self._run, windows)
        telemetry.BATCH_STREAMS.labels("asr").observe(len(batch))
        telemetry.STEP_SECONDS.labels("asr").observe(run.took_s)
        telemetry.MODEL_SECONDS.labels("asr").inc(run.took_s)
        if run.error is None:
            self._succeeded_s = time.perf_counter()
            if batch[0].bucket is not _PROBE:
                self._load.decoded(len(batch), run.took_s, live=batch[0].live)
            for job, hypothesis in zip(batch, run.hypotheses, strict=True):
                if not job.done.done():
                    job.done.set_result(hypothesis)
            return
        telemetry.MODEL_ERRORS.labels("asr").inc()
        if len(batch) > 1:
            # One bad window must not take the others down.
            for job in batch:
                if not job.done.done():
                    await self._decode([job], pool)
        elif not batch[0].done.done():
            batch[0].done.set_exception(run.error)

    def _run(self, windows: Sequence[Window]) -> _Run:
        """Run the model, on a thread. What the machine does besides counts as cost: it delays."""
        began_s = time.perf_counter()
        try:
            heard = self._recognizer.recognize(windows)
        except Exception as error:  # noqa: BLE001 -- it is the stream's to report, not this worker's
            return _Run([], error, time.perf_counter() - began_s)
        return _Run(heard, None, time.perf_counter() - began_s)

    async def _adapt(self) -> None:
        """Keep the step, and what is told about the load, up to date."""
        while True:
            now_s = time.perf_counter()
            speaking = self._speaking(now_s)
            self._step_s = self._load.step_s(speaking)
            self._fair_step_s = max(self._step_s, self._load.needed_step_s(speaking))
            telemetry.SPEAKING_STREAMS.labels("asr").set(speaking)
            telemetry.CADENCE_SECONDS.labels("asr").set(self._step_s)
            telemetry.CAPACITY_STREAMS.labels("asr").set(self._load.capacity)
            telemetry.UTILISATION_RATIO.labels("asr").set(self._utilisation.change(now_s))
            await asyncio.sleep(_ADAPT_EVERY_S)

    def _speaking(self, now_s: float) -> int:
        return sum(seat.speaks(now_s) for seat in self._seats)
