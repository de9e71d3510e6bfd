"""``python -m services.asr``: one replica of the ASR service."""

import asyncio
import os
from dataclasses import replace

import numpy as np
import structlog

from services.asr.config import Settings
from services.asr.engines.choice import load_engine
from services.asr.load import Limits
from services.asr.policies.policy import Policy
from services.asr.recognizer import Recognizer, Window
from services.asr.scheduler import Scheduler
from services.asr.servicer import AsrServicer, Paces
from services.asr.transcriber import Cadence, samples_of_frames
from services.common import models
from services.common.errors import DeviceError
from services.common.process import start
from services.common.server import serve
from services.common.timeline import SAMPLE_RATE_HZ, samples, samples_of_ms
from services.common.tls import mesh_identity
from services.common.watched import FileError
from voxmesh.asr.v1 import asr_pb2_grpc as rpc

log = structlog.get_logger(__name__)

_CORES = os.cpu_count() or 1
_MAX_WORKERS = 4
"""Beyond this, larger batches make better use of more cores."""
_PROBE_INTERVAL_S = 10.0


def workers(chosen: Settings) -> int:
    """Batches decoded at once."""
    return chosen.workers or (min(_CORES, _MAX_WORKERS) if chosen.device == "cpu" else 1)


def recognizer(chosen: Settings) -> Recognizer:
    """The model that the settings name, loaded.

    Raises:
        ModelError: It is not installed, or not what the engine can run.
        DeviceError: The device is not there.

    """
    return load_engine(
        chosen, workers=workers(chosen), threads=chosen.threads or max(1, _CORES // workers(chosen))
    )


def paces(chosen: Settings) -> Paces:
    """How live streams and files are decoded."""
    live = Cadence(
        window=samples(chosen.window_s),
        keep=samples_of_ms(chosen.keep_ms),
        gap=samples(chosen.gap_s),
        live=True,
        policy=Policy(chosen.policy),
        attention=samples_of_frames(chosen.frame_threshold),
        agreement=chosen.agreement,
        agreed_attention=samples_of_frames(chosen.agreed_threshold),
        pause=samples_of_ms(chosen.pause_ms),
        sure=samples_of_ms(chosen.sure_ms),
        sure_probability=chosen.pause_probability,
        quiet=samples_of_ms(chosen.quiet_ms),
        context=chosen.context_tokens,
    )
    file = replace(live, window=samples(chosen.file_window_s), live=False)
    return Paces(live, file)


def limits(chosen: Settings) -> Limits:
    """What the replica has, and what it is to do with it."""
    return Limits(
        workers=workers(chosen),
        max_batch=chosen.max_batch,
        max_streams=chosen.max_streams,
        min_step_s=chosen.min_step_ms / 1000,
        max_step_s=chosen.max_step_ms / 1000,
        admit_step_s=chosen.admit_step_ms / 1000,
    )


async def main(chosen: Settings) -> None:
    """Load the model and serve it.

    Raises:
        ModelError: It is not installed.
        DeviceError: It does not answer.

    """
    await replica(recognizer(chosen), chosen)


async def replica(
    model: Recognizer, chosen: Settings, *, probe_interval_s: float = _PROBE_INTERVAL_S
) -> None:
    """Prove that a model answers, then serve it until the process is told to stop.

    Raises:
        DeviceError: It does not answer.
        FileError: The files that the settings name cannot be used.

    """
    stopping = asyncio.Event()
    identity = mesh_identity(chosen)
    scheduler = Scheduler(model, limits(chosen))
    servicer = AsrServicer(
        model,
        scheduler,
        model=chosen.model,
        paces=paces(chosen),
        max_streams=chosen.max_streams,
        stopping=stopping,
        drain_s=chosen.drain_s,
    )

    def noise(num_samples: int) -> Window:
        # So that encoder, decoder and alignment all run.
        heard = np.random.default_rng(0).normal(0, 0.1, num_samples).astype(np.float32)
        return Window(heard, 0, language_code=model.language_codes[0])

    async def probe() -> bool:
        # A replica that answers its streams is healthy, however long its queue is.
        if scheduler.idle_s < probe_interval_s:
            return True
        try:
            await scheduler.probe(noise(SAMPLE_RATE_HZ))
        except DeviceError as error:
            log.warning("the model does not answer", reason=str(error))
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(scheduler.run(), name="asr.scheduler")
        # The first run of a model is slower than all others, and measures nothing.
        await scheduler.probe(noise(SAMPLE_RATE_HZ))
        await scheduler.measure(noise(samples(chosen.window_s)))
        log.info("model loaded", model=chosen.model, engine=model.engine)
        await serve(
            lambda server: rpc.add_AsrServiceServicer_to_server(servicer, server),
            service_names=["voxmesh.asr.v1.AsrService"],
            address=chosen.address,
            drain_s=chosen.drain_s,
            stopping=stopping,
            identity=identity,
            probe=probe,
            probe_interval_s=probe_interval_s,
        )
        work.cancel()


if __name__ == "__main__":
    start("asr", Settings, main, reasons=(DeviceError, FileError, models.ModelError))
