"""Settings of the translator service, read once at start from ``TRANSLATOR_*`` variables."""

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """What one replica needs to know."""

    model_config = SettingsConfigDict(env_prefix="TRANSLATOR_")

    address: str = "127.0.0.1:50054"
    """Where to listen, such as `[::]:50054` or `unix:/run/translator.sock`."""
    model: str = "firefox-en-pt"
    """`firefox-en-pt`, which comes with the package, or the folder of an NLLB-200: as Hugging Face
    publishes it, or as CTranslate2 converts it, with its `tokenizer.json`."""
    chat_url: str = ""
    """OpenAI-compatible API of a language model that translates, such as
    `http://localhost:8000/v1`; the model is what is asked of it. Empty: none."""
    chat_key: SecretStr = SecretStr("")
    """What that API asks for."""
    chat_timeout_s: float = Field(default=10.0, gt=0, le=300)
    """How long it may keep silent, in seconds."""
    nllb_library: Literal["auto", "nllw"] = "auto"
    """What runs an NLLB; `auto`: CTranslate2 or transformers, as its folder is made. `nllw` takes
    a folder as Hugging Face publishes it, and one text at a time: the others are faster."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where NLLB runs."""
    compute_type: Literal["auto", "int8", "int8_float16", "bfloat16", "float16", "float32"] = "auto"
    """Numbers NLLB computes with; `auto`: float16 on a GPU; on a CPU int8, or on torch bfloat16
    where the CPU multiplies that (AMX), else float32. Torch has no int8."""
    pivot: bool = False
    """Whether a pair that the model lacks is translated through English, where it has both halves:
    in twice the time, and with the errors of both."""
    max_streams: int = Field(default=64, ge=1, le=10_000)
    """Streams served at once; one more is refused with RESOURCE_EXHAUSTED."""
    workers: int = Field(default=0, ge=0, le=64)
    """Batches at once, each on one core; 0: one for each core, four at most, or one on a GPU or
    torch, which takes all cores; 16 requests of a language model."""
    max_batch: int = Field(default=16, ge=1, le=256)
    """Texts of different streams in one batch."""
    policy: Literal["local-agreement", "align-att", "wait-k", "sentence"] = "local-agreement"
    """What makes text certain before its sentence has ended: translations that agree, attention
    (NLLB alone), a fixed distance, or nothing."""
    agreement_words: int = Field(default=6, ge=2, le=40)
    """Words over which translations have to agree."""
    held_back: int = Field(default=2, ge=0, le=40)
    """Words at the end of a translation that are not certain even so."""
    attention_margin: int = Field(default=2, ge=0, le=40)
    """With attention: the newest words, from which nothing certain may come."""
    wait_words: int = Field(default=5, ge=1, le=40)
    """With a fixed distance: how many words it is."""
