"""Settings of the VAD service, read once at start from ``VAD_*`` variables."""

from pydantic import Field, FilePath, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What one replica needs to know."""

    model_config = SettingsConfigDict(env_prefix="VAD_")

    address: str = "127.0.0.1:50051"
    """Where to listen, such as `[::]:50051` or `unix:/run/vad.sock`."""
    model: FilePath
    """The weights: Silero's `silero_vad.onnx`, as `voxmesh pull silero-vad` installs it."""
    max_streams: PositiveInt = 1000
    """Streams served at once; one more is refused with RESOURCE_EXHAUSTED."""
    threads: int = Field(default=1, ge=1, le=64)
    """Model runs at once, each on one core."""
    onset_threshold: float = Field(default=0.5, ge=0.05, le=0.95)
    """Speech starts where its probability reaches this, unless the stream says otherwise."""
    offset_threshold: float = Field(default=0.35, ge=0.01, le=0.95)
    """Speech may end where its probability is below this; at most the onset threshold."""
    min_speech_ms: int = Field(default=100, ge=0, le=2000)
    """Speech shorter than this is ignored, in milliseconds."""
    hangover_ms: int = Field(default=700, ge=32, le=10_000)
    """Silence must last this long to end speech, in milliseconds."""
    max_speech_s: float = Field(default=60.0, ge=5, le=86_400)
    """Speech longer than this is ended at its quietest recent place, in seconds."""

    @field_validator("offset_threshold")
    @classmethod
    def _below_onset(cls, offset: float, info: ValidationInfo) -> float:
        onset = info.data.get("onset_threshold")
        if onset is not None and offset > onset:
            raise ValueError(f"should be at most the onset threshold, {onset}")
        return offset
