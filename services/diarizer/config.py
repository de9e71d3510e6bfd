"""Settings of the diarizer service, read once at start from ``DIARIZER_*`` variables."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What one replica needs to know."""

    model_config = SettingsConfigDict(env_prefix="DIARIZER_")

    address: str = "127.0.0.1:50053"
    """Where to listen, such as `[::]:50053` or `unix:/run/diarizer.sock`."""
    model: str = "diarizer-online"
    """Name in the catalogue, or the folder of a model of one's own: one with the same files, a
    Nemotron 3 Diarization as transformers saves it, or a Sortformer for NeMo, whose `.nemo` file
    can be named too."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where a Sortformer runs; the online engine runs on CPUs alone."""
    compute_type: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Numbers a Sortformer computes with; `auto`: bfloat16 on a CPU that has AMX, else float32."""
    max_streams: int = Field(default=64, ge=1, le=10_000)
    """Streams served at once; one more is refused with RESOURCE_EXHAUSTED."""
    workers: int = Field(default=0, ge=0, le=64)
    """Batches at once, on as many parts of the cores; 0: one for each core, four at most, and one
    for a Sortformer."""
    max_batch: int = Field(default=8, ge=1, le=256)
    """Steps of different streams in one batch."""
    latency_ms: int = Field(default=1000, ge=200, le=5000)
    """How much audio behind a moment is heard before it is decided who spoke then, in milliseconds,
    unless the stream says otherwise. A Sortformer streams in the calmest way it knows that is no
    later, whatever streams say."""
    max_speakers: int = Field(default=20, ge=1, le=60)
    """Most speakers in a stream that does not say how many there can be."""
    active_threshold: float = Field(default=0.0, ge=0, le=0.95)
    """Probability from which somebody counts as speaking; 0: 0.4, and 0.5 for a Sortformer."""
    same_threshold: float = Field(default=0.4, ge=0.0, le=1.0)
    """Likeness to a known voice, a cosine, below which somebody is somebody new; for the online
    engine."""
    new_speaker_ms: int = Field(default=1200, ge=200, le=10_000)
    """What somebody new must have said alone to be a speaker of their own, in milliseconds; for the
    online engine."""
