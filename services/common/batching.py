"""Makes batches of what many streams ask of a model, off the event loop, and says how many fit."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from services.common import telemetry
from services.common.errors import SaturatedError

_SPEAKING_S = 5.0
"""A live stream that asked for nothing for so long does not speak."""
_TARGET_UTILISATION = 0.8
"""The rest is for what comes at pauses, and for short queues."""
_COST_STEPS = 32.0
"""Over so many steps their cost is averaged."""

StepT = TypeVar("StepT")
FoundT = TypeVar("FoundT")
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Seat:
    """A stream's place among the others; it asks for one step at a time."""

    live: bool
    asked_s: float

    def speaks(self, now_s: float) -> bool:
        """Whether it has lately been asking for steps."""
        return self.live and now_s - self.asked_s < _SPEAKING_S


@dataclass(slots=True, eq=False)
class _Job(Generic[StepT, FoundT]):
    step: StepT
    live: bool
    asked_s: float
    done: "asyncio.Future[FoundT]"


@dataclass(frozen=True, slots=True)
class _Run(Generic[FoundT]):
    """What became of a batch."""

    found: list[FoundT]
    error: Exception | None
    took_s: float


class Batcher(Generic[StepT, FoundT]):
    """One model, shared by the streams of a replica. ``run`` does the work and never returns."""

    def __init__(
        self,
        stage: str,
        advance: Callable[[Sequence[StepT]], list[FoundT]],
        bucket: Callable[[StepT], Hashable],
        *,
        step_s: float,
        workers: int,
        max_batch: int,
    ) -> None:
        """Share a model.

        Args:
            stage: Its name in metrics.
            advance: Makes a step of each of some streams, on a thread.
            bucket: Steps of equal buckets may share a call.
            step_s: How often a live stream that speaks asks for one, in seconds.
            workers: Batches at once.
            max_batch: Steps in one batch.

        """
        self._stage = stage
        self._make = advance
        self._bucket = bucket
        self._step_s = step_s
        self._workers = workers
        self._max_batch = max_batch
        self._pool = ThreadPoolExecutor(workers, f"{stage}.model")
        self._seats: set[Seat] = set()
        # Bounded by the slots: a stream waits here with one step.
        self._waiting: list[_Job[StepT, FoundT]] = []
        self._arrived = asyncio.Condition()
        self._step_cost_s = 0.0
        self._busy = 0
        self._succeeded_s = float("-inf")

    async def run(self) -> None:
        """Make steps until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._workers):
                    tasks.create_task(self._work(), name=f"{self._stage}.batcher.{number}")
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def idle_s(self) -> float:
        """Seconds since the model last answered."""
        return time.perf_counter() - self._succeeded_s

    @property
    def capacity(self) -> int:
        """Live streams that can speak at once, judging by what steps cost now."""
        cost_s = max(self._step_cost_s, 1e-6)
        return int(_TARGET_UTILISATION * self._workers * self._step_s / cost_s)

    @contextmanager
    def seat(self, *, live: bool, moved: bool = False) -> Iterator[Seat]:
        """Admit a stream for the length of the ``with`` block.

        Args:
            live: Whether somebody speaks now; recordings are heard when nobody does.
            moved: Whether it was admitted before, elsewhere: then it is not refused.

        Raises:
            SaturatedError: With one more live stream steps would come too late. A replica on which
                nobody speaks takes one in any case, and so learns what it costs now.

        """
        now_s = time.perf_counter()
        speaking = self._speaking(now_s)
        if live and speaking and not moved and speaking + 1 > self.capacity:
            raise SaturatedError(
                f"{speaking} live streams speak, and {self.capacity} fit: a step takes"
                f" {self._step_cost_s:.3f} s"
            )
        seat = Seat(live, now_s)
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.remove(seat)

    async def advance(self, step: StepT, seat: Seat) -> FoundT:
        """Make a stream's step, in a batch with whatever else waits.

        Raises:
            DeviceError: The model failed for this step, also when it was given it alone.

        """
        seat.asked_s = time.perf_counter()
        done: asyncio.Future[FoundT] = asyncio.get_running_loop().create_future()
        job = _Job(step, seat.live, seat.asked_s, done)
        async with self._arrived:
            self._waiting.append(job)
            self._arrived.notify()
        try:
            return await job.done
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def probe(self, step: StepT) -> None:
        """Make a step that is no stream's, without measuring it.

        Raises:
            DeviceError: The model failed.

        """
        await self.elsewhere(lambda: self._make([step]))
        self._succeeded_s = time.perf_counter()

    async def elsewhere(self, work: Callable[[], T]) -> T:
        """Do something with the model, on one of its threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _work(self) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
                batch = self._take()
            await self._advance(batch)

    def _take(self) -> list[_Job[StepT, FoundT]]:
        """The step that has waited longest, live ones first, and those that go with it."""
        now_s = time.perf_counter()
        ranked = sorted(self._waiting, key=lambda job: (not job.live, job.asked_s))
        bucket = self._bucket(ranked[0].step)
        alike = [job for job in ranked if self._bucket(job.step) == bucket]
        # Workers that have nothing to do share what there is.
        idle = self._workers - self._busy
        batch = alike[: min(self._max_batch, -(-len(alike) // idle))]
        for job in batch:
            self._waiting.remove(job)
            telemetry.STEP_WAIT_SECONDS.labels(self._stage).observe(now_s - job.asked_s)
        telemetry.SPEAKING_STREAMS.labels(self._stage).set(self._speaking(now_s))
        return batch

    async def _advance(self, batch: Sequence[_Job[StepT, FoundT]]) -> None:
        self._busy += 1
        try:
            steps = [job.step for job in batch]
            run = await self.elsewhere(lambda: self._run(steps))
        finally:
            self._busy -= 1
        telemetry.BATCH_STREAMS.labels(self._stage).observe(len(batch))
        telemetry.STEP_SECONDS.labels(self._stage).observe(run.took_s)
        telemetry.MODEL_SECONDS.labels(self._stage).inc(run.took_s)
        if run.error is None:
            self._succeeded_s = time.perf_counter()
            self._learn(run.took_s / len(batch))
            for job, found in zip(batch, run.found, strict=True):
                if not job.done.done():
                    job.done.set_result(found)
            return
        telemetry.MODEL_ERRORS.labels(self._stage).inc()
        if len(batch) > 1:
            # One bad step must not take the others down.
            for job in batch:
                if not job.done.done():
                    await self._advance([job])
        elif not batch[0].done.done():
            batch[0].done.set_exception(run.error)

    def _run(self, steps: Sequence[StepT]) -> _Run[FoundT]:
        """Run the model, on a thread."""
        began_s = time.perf_counter()
        try:
            found = self._make(steps)
        except Exception as error:  # noqa: BLE001 -- it is the stream's to report, not this worker's
            return _Run([], error, time.perf_counter() - began_s)
        return _Run(found, None, time.perf_counter() - began_s)

    def _learn(self, cost_s: float) -> None:
        weight = 1 / _COST_STEPS if self._step_cost_s else 1.0
        self._step_cost_s += weight * (cost_s - self._step_cost_s)
        telemetry.CAPACITY_STREAMS.labels(self._stage).set(self.capacity)

    def _speaking(self, now_s: float) -> int:
        return sum(seat.speaks(now_s) for seat in self._seats)
