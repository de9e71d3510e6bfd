"""Settings of the ASR service, read once at start from ``ASR_*`` variables."""

from typing import Literal

from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What one replica needs to know."""

    model_config = SettingsConfigDict(env_prefix="ASR_")

    address: str = "127.0.0.1:50052"
    """Where to listen, such as `[::]:50052` or `unix:/run/asr.sock`."""
    model: str
    """Name in the catalogue, such as `base`, or a folder with a Whisper model: CTranslate2's,
    Hugging Face's `.safetensors` or OpenAI's `.pt`."""
    engine: Literal["auto", "onnx", "ctranslate2", "torch"] = "auto"
    """What runs the model; `auto`: torch if the model or another setting needs it, else `onnx` for
    int8 without a beam on a CPU, else CTranslate2."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """Where the model runs; `mps`, Apple's GPU, with torch alone."""
    compute_type: Literal["auto", "int8", "int8_float16", "bfloat16", "float16", "float32"] = "auto"
    """Numbers the model computes with; `auto`: float16 on a GPU; on a CPU int8 with CTranslate2,
    and with torch bfloat16 where the CPU has AMX, else float32."""
    alignment_heads: str = ""
    """Heads whose attention gives words their times, as `[[layer, head], ...]` or packed as OpenAI
    does; empty: those that the model names. With torch alone."""
    lora: str = ""
    """Folder with a LoRA adapter, merged into the weights; empty: none. With torch alone."""
    workers: int = Field(default=0, ge=0, le=64)
    """Batches decoded at once; 0: one for each CPU core, four at most, or one on a GPU."""
    threads: int = Field(default=0, ge=0, le=256)
    """CPU cores for each batch; 0: those of the machine, shared among the workers."""
    max_batch: int = Field(default=16, ge=1, le=256)
    """Streams decoded in one batch."""
    max_streams: PositiveInt = 32
    """Streams served at once; one more is refused with RESOURCE_EXHAUSTED."""
    beam_size: int = Field(default=1, ge=1, le=10)
    """Hypotheses followed while decoding; 1 is greedy; more with CTranslate2 alone."""
    pad_s: float = Field(default=3.0, ge=0, le=25)
    """Silence the encoder hears behind a window, in seconds."""
    min_window_s: float = Field(default=10.0, ge=0, le=30)
    """The encoder hears at least so much, silence included: in less, Whisper loops. In seconds."""
    bucket_s: float = Field(default=1.0, ge=0.1, le=30)
    """Windows are rounded up to a multiple of this, to share batches, in seconds."""
    min_step_ms: int = Field(default=800, ge=100, le=10_000)
    """New audio that makes a live stream be decoded again while there is room, in milliseconds."""
    max_step_ms: int = Field(default=2000, ge=100, le=10_000, validate_default=True)
    """The same when there is none left, in milliseconds."""
    admit_step_ms: int = Field(default=1000, ge=100, le=10_000)
    """A new live stream is refused if all would then be decoded less often than this, or if windows
    wait for 0.15 of it already; in milliseconds."""
    policy: Literal["either", "local-agreement", "align-att"] = "either"
    """What makes a live word certain: hypotheses that share it, attention alone, or either."""
    agreement: int = Field(default=2, ge=2, le=5)
    """LocalAgreement: hypotheses in a row that have to share a word."""
    agreed_threshold: int = Field(default=30, ge=0, le=200)
    """LocalAgreement: a shared word waits while attention places it this close to the end of the
    audio, in encoder frames of 20 ms."""
    frame_threshold: int = Field(default=60, ge=0, le=200)
    """AlignAtt: a word waits while attention places it this close to the end of the audio, in
    encoder frames of 20 ms."""
    pause_ms: int = Field(default=120, ge=0, le=2000)
    """Quiet that makes a live stream be decoded at once, before the VAD knows that nobody speaks,
    in milliseconds; 0: wait for the VAD."""
    sure_ms: int = Field(default=200, ge=0, le=2000)
    """Quiet after which the words of such a pause are committed if each of them is probable enough,
    in milliseconds."""
    pause_probability: float = Field(default=0.8, ge=0, le=1)
    """How probable that is."""
    quiet_ms: int = Field(default=400, ge=0, le=2000)
    """Quiet after which the words of such a pause are committed anyhow, in milliseconds."""
    context_tokens: int = Field(default=32, ge=0, le=200)
    """What was said before the window, and is given to the model with it, in tokens."""
    window_s: float = Field(default=16.0, ge=5, le=30)
    """Audio beyond which a live window is cut at a committed word, in seconds."""
    keep_ms: int = Field(default=2000, ge=0, le=4000)
    """Words this close to the end of a full window are left to the next, in milliseconds."""
    gap_s: float = Field(default=2.0, ge=0.1, le=10)
    """Silence that starts a new window in a live stream, in seconds."""
    file_window_s: float = Field(default=28.0, ge=5, le=30)
    """Audio that a file is decoded from at a time, in seconds."""

    @field_validator("max_step_ms")
    @classmethod
    def _not_below_min_step(cls, max_step_ms: int, info: ValidationInfo) -> int:
        min_step_ms = info.data.get("min_step_ms")
        if min_step_ms is not None and max_step_ms < min_step_ms:
            raise ValueError("should be no less than the minimum")
        return max_step_ms

    @field_validator("keep_ms")
    @classmethod
    def _below_window(cls, keep_ms: int, info: ValidationInfo) -> int:
        window_s = info.data.get("window_s")
        if window_s is not None and keep_ms > window_s * 500:
            raise ValueError("should be at most half of the window")
        return keep_ms
