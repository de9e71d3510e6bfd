"""Decodes the windows of many streams together, off the event loop.

A stream has at most one window here at a time, so streams that wait longer are decoded less often
and from more audio: under load the cadence slows, and nothing is dropped.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from services.asr.recognizer import Hypothesis, Recognizer, Window
from services.common import telemetry


@dataclass(slots=True)
class _Job:
    window: Window
    live: bool
    deadline_s: float
    ready_s: float
    done: "asyncio.Future[Hypothesis]"

    def urgency(self) -> tuple[bool, float]:
        """Files after everything live; then the nearest deadline."""
        return not self.live, self.deadline_s


@dataclass(slots=True)
class _Result:
    hypotheses: list[Hypothesis] = field(default_factory=list)
    error: Exception | None = None


class Scheduler:
    """One model, shared by the streams of a replica. ``run`` does the work and never returns."""

    def __init__(self, recognizer: Recognizer, *, workers: int, max_batch: int) -> None:
        """Share a model.

        Args:
            recognizer: The model.
            workers: Batches decoded at once.
            max_batch: Streams in one batch.

        """
        self._recognizer = recognizer
        self._workers = workers
        self._max_batch = max_batch
        # Bounded by the slots: a stream waits here with one window.
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Condition()
        self._succeeded_s = float("-inf")

    async def run(self) -> None:
        """Decode until cancelled."""
        with ThreadPoolExecutor(self._workers, "asr.model") as pool:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._workers):
                    tasks.create_task(self._work(pool), name=f"asr.scheduler.{number}")

    @property
    def idle_s(self) -> float:
        """Seconds since the model last answered."""
        return time.perf_counter() - self._succeeded_s

    async def recognize(self, window: Window, *, live: bool, within_s: float) -> Hypothesis:
        """Decode one window, in a batch with whatever else is due.

        Args:
            window: What to decode.
            live: Whether somebody waits for it; files are decoded when nobody does.
            within_s: When it should be done; the nearest deadline goes first.

        Raises:
            DeviceError: The model failed for this window, also when it was given it alone.

        """
        now = time.perf_counter()
        done: asyncio.Future[Hypothesis] = asyncio.get_running_loop().create_future()
        async with self._arrived:
            self._waiting.append(_Job(window, live, now + within_s, now, done))
            self._arrived.notify()
        return await done

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._waiting)
                batch = self._take()
            if batch:
                await self._decode(batch, pool)

    def _take(self) -> list[_Job]:
        """The most urgent window, and those that can go with it."""
        ranked = sorted((job for job in self._waiting if not job.done.done()), key=_Job.urgency)
        batch: list[_Job] = []
        if ranked:
            bucket = self._recognizer.bucket(ranked[0].window)
            fitting = (job for job in ranked if self._recognizer.bucket(job.window) == bucket)
            batch = [job for job, _ in zip(fitting, range(self._max_batch), strict=False)]
        taken = set(map(id, batch))
        # Whose future is done has left: its stream ended while it waited.
        self._waiting = deque(
            job for job in self._waiting if id(job) not in taken and not job.done.done()
        )
        return batch

    async def _decode(self, batch: list[_Job], pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        for job in batch:
            telemetry.STEP_WAIT_SECONDS.labels("asr").observe(started - job.ready_s)
        telemetry.BATCH_STREAMS.labels("asr").observe(len(batch))
        windows = [job.window for job in batch]
        result = await loop.run_in_executor(pool, self._recognize, windows)
        telemetry.STEP_SECONDS.labels("asr").observe(time.perf_counter() - started)
        telemetry.MODEL_SECONDS.labels("asr").inc(time.perf_counter() - started)
        if result.error is None:
            self._succeeded_s = time.perf_counter()
            for job, hypothesis in zip(batch, result.hypotheses, strict=True):
                if not job.done.done():
                    job.done.set_result(hypothesis)
            return
        telemetry.MODEL_ERRORS.labels("asr").inc()
        if len(batch) > 1:
            # One bad window must not take the others down.
            for job in batch:
                await self._decode([job], pool)
        elif not batch[0].done.done():
            batch[0].done.set_exception(result.error)

    def _recognize(self, windows: list[Window]) -> _Result:
        try:
            return _Result(self._recognizer.recognize(windows))
        except Exception as error:  # noqa: BLE001 -- it is the stream's to report, not this worker's
            return _Result(error=error)
