"""Classifies the windows of all streams together, off the event loop."""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from services.common import telemetry
from services.common.audio import FloatArray
from services.common.errors import DeviceError
from services.vad.detector import Detector

MAX_BATCH = 32
"""Streams per model run: beyond it a stream costs no less, and others wait longer."""
STEPS_PER_TURN = 8
"""Windows per stream before others get their turn: a quarter of a second of audio."""


@dataclass(slots=True)
class _Job:
    """Consecutive windows of one stream."""

    windows: FloatArray
    memory: FloatArray
    done: "asyncio.Future[None]"
    ready_s: float
    probabilities: list[float] = field(default_factory=list)
    error: DeviceError | None = None

    @property
    def complete(self) -> bool:
        return self.error is not None or len(self.probabilities) == len(self.windows)


class Batcher:
    """One model, shared by the streams of a replica.

    A stream's state is recurrent, so a run takes at most one window of each stream; streams take
    turns until none waits. ``run`` does the work and never returns.
    """

    def __init__(self, detector: Detector, *, threads: int) -> None:
        self.detector = detector
        self._threads = threads
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()

    async def run(self) -> None:
        """Classify until cancelled."""
        with ThreadPoolExecutor(self._threads, "vad.model") as pool:
            async with asyncio.TaskGroup() as tasks:
                for number in range(self._threads):
                    tasks.create_task(self._work(pool), name=f"vad.batcher.{number}")

    async def classify(
        self, windows: FloatArray, memory: FloatArray
    ) -> tuple[list[float], FloatArray]:
        """Classify consecutive windows of one stream.

        Args:
            windows: (num_windows, WINDOW_SAMPLES) float32.
            memory: (memory_size,) float32, what the stream remembers.

        Returns:
            A probability for each window, and what the stream remembers now.

        Raises:
            DeviceError: The model failed for this stream, also when it was asked for it alone.

        """
        done = asyncio.get_running_loop().create_future()
        job = _Job(windows, memory, done, time.perf_counter())
        # Bounded by the slots: a stream waits here for one job at a time.
        self._waiting.append(job)
        self._arrived.set()
        await done
        return job.probabilities, job.memory

    async def _work(self, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self._next_jobs()
            await loop.run_in_executor(pool, self._advance, jobs)
            for job in jobs:
                if job.done.cancelled():
                    continue
                if job.error is not None:
                    job.done.set_exception(job.error)
                elif job.complete:
                    job.done.set_result(None)
                else:
                    job.ready_s = time.perf_counter()
                    self._waiting.append(job)

    async def _next_jobs(self) -> list[_Job]:
        """The jobs that waited longest; those whose stream has ended meanwhile are dropped."""
        while True:
            jobs: list[_Job] = []
            while self._waiting and len(jobs) < MAX_BATCH:
                job = self._waiting.popleft()
                if not job.done.cancelled():
                    jobs.append(job)
            if jobs:
                return jobs
            self._arrived.clear()
            await self._arrived.wait()

    def _advance(self, jobs: list[_Job]) -> None:
        """Up to STEPS_PER_TURN windows of each job. Runs on a thread, which owns the jobs."""
        now_s = time.perf_counter()
        for job in jobs:
            telemetry.STEP_WAIT_SECONDS.labels("vad").observe(now_s - job.ready_s)
        for _ in range(STEPS_PER_TURN):
            jobs = [job for job in jobs if not job.complete]
            if not jobs:
                return
            try:
                self._step(jobs)
            except DeviceError:
                self._step_alone(jobs)

    def _step_alone(self, jobs: list[_Job]) -> None:
        """One window of each job, each in its own run: a bad stream fails, the others go on."""
        for job in jobs:
            try:
                self._step([job])
            except DeviceError as error:
                job.error = error

    def _step(self, jobs: list[_Job]) -> None:
        """One window of each job, in one run."""
        began_s = time.perf_counter()
        windows = np.stack([job.windows[len(job.probabilities)] for job in jobs])
        try:
            probabilities, memory = self.detector.classify(
                windows, np.stack([job.memory for job in jobs])
            )
        except DeviceError:
            telemetry.MODEL_ERRORS.labels("vad").inc()
            raise
        took_s = time.perf_counter() - began_s
        telemetry.STEP_SECONDS.labels("vad").observe(took_s)
        telemetry.MODEL_SECONDS.labels("vad").inc(took_s)
        telemetry.BATCH_STREAMS.labels("vad").observe(len(jobs))
        for job, probability, remembered in zip(jobs, probabilities, memory, strict=True):
            job.probabilities.append(float(probability))
            job.memory = remembered
