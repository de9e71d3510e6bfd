"""Which engine runs a model. Each is imported only when it is chosen: one replica needs one."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from services.common import models
from services.common.models import ModelError
from services.common.timeline import samples_of_ms
from services.diarizer.config import Settings
from services.diarizer.diarizer import Diarizer

_MAX_WORKERS = 4
"""Beyond this, larger batches make better use of more cores."""


def load_engine(chosen: Settings) -> tuple[Diarizer, int]:
    """Load the model that the settings name.

    Returns:
        It, and how many batches are to be made at once.

    Raises:
        ModelError: It is not installed, not whole, or not what an engine can run.
        DeviceError: It cannot be run here.

    """
    folder = models.locate(chosen.model)
    cores = os.cpu_count() or 1
    nemo = [folder] if folder.suffix == ".nemo" else sorted(folder.glob("*.nemo"))
    if nemo or (folder / "config.json").is_file():
        workers = chosen.workers or 1
        return _sortformer(chosen, nemo or [folder], max(1, cores // workers)), workers
    if chosen.device != "cpu" or chosen.compute_type != "auto":
        raise ModelError(
            f"{folder} runs on CPUs alone, in float32: unset DIARIZER_DEVICE and"
            " DIARIZER_COMPUTE_TYPE"
        )
    return _online(chosen, folder), chosen.workers or min(cores, _MAX_WORKERS)


def _online(chosen: Settings, folder: Path) -> Diarizer:
    from services.diarizer.engines.embedder import Embedder
    from services.diarizer.engines.online import OnlineDiarizer, Tuning
    from services.diarizer.engines.segmenter import Segmenter
    from services.diarizer.engines.voices import Rules

    tuning = Tuning(
        Rules(same=chosen.same_threshold, new_s=chosen.new_speaker_ms / 1000),
        active=chosen.active_threshold or 0.4,
    )
    return OnlineDiarizer(
        # One core per run: the models are too small to share, and replicas use several at once.
        Segmenter(folder / "segmentation.bin", threads=1),
        Embedder(folder / "campplus.pt", threads=1),
        tuning,
    )


def _sortformer(chosen: Settings, found: Sequence[Path], threads: int) -> Diarizer:
    from services.diarizer.engines.sortformer import FRAME_SAMPLES, Network, Sortformer

    if len(found) > 1:
        raise ModelError(f"{found[0].parent} holds {len(found)} .nemo files: name one of them")
    [path] = found
    network: Network
    if path.suffix == ".nemo":
        _require(path, "diarizer-nemo", "torch", "nemo")
        from services.diarizer.engines.nemo_sortformer import NemoSortformer

        network = NemoSortformer(
            path, device=chosen.device, compute_type=chosen.compute_type, threads=threads
        )
    else:
        _require(path, "diarizer-torch", "torch", "transformers")
        from services.diarizer.engines.nemotron import Nemotron

        network = Nemotron(
            path, device=chosen.device, compute_type=chosen.compute_type, threads=threads
        )
    look_ahead = samples_of_ms(chosen.latency_ms) // FRAME_SAMPLES
    return Sortformer(network, network.preset(look_ahead), active=chosen.active_threshold or 0.5)


def _require(path: Path, extra: str, *packages: str) -> None:
    if lacking := [name for name in packages if find_spec(name) is None]:
        raise ModelError(f"{path} needs {lacking[0]}: pip install 'voxmesh[{extra}]'")
