"""Which engine runs a model. Each is imported only when it is chosen: one replica needs one."""

from services.common import models
from services.diarizer.config import Settings
from services.diarizer.diarizer import Diarizer


def load_engine(chosen: Settings) -> Diarizer:
    """Load the model that the settings name.

    Raises:
        ModelError: It is not installed, not whole, or not what an engine can run.
        DeviceError: It cannot be run here.

    """
    from services.diarizer.engines.embedder import Embedder
    from services.diarizer.engines.online import OnlineDiarizer, Tuning
    from services.diarizer.engines.segmenter import Segmenter
    from services.diarizer.engines.voices import Rules

    folder = models.locate(chosen.model)
    tuning = Tuning(
        Rules(same=chosen.same_threshold, new_s=chosen.new_speaker_ms / 1000),
        active=chosen.active_threshold,
    )
    return OnlineDiarizer(
        # One core per run: the models are too small to share, and replicas use several at once.
        Segmenter(folder / "segmentation.bin", threads=1),
        Embedder(folder / "campplus.pt", threads=1),
        tuning,
    )
