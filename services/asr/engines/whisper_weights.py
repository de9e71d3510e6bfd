"""Reads a Whisper model in whichever of three formats, told by looking; runs nothing of it."""

from pathlib import Path

from services.asr.engines import ctranslate2_format, hugging_face_format, openai_format
from services.asr.engines.whisper_checkpoint import Checkpoint
from services.common.models import ModelError


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model.

    Args:
        path: OpenAI's ``.pt`` file, or a folder with one; a folder with ``model.bin``
            (CTranslate2), or with ``*.safetensors`` (Hugging Face).

    Raises:
        ModelError: There is none, or it is damaged.

    """
    if path.is_file():
        return openai_format.load(path)
    if (path / "model.bin").is_file():
        return ctranslate2_format.load(path)
    if any(path.glob("*.safetensors")):
        return hugging_face_format.load(path)
    files = sorted(path.glob("*.pt"))
    if len(files) == 1:
        return openai_format.load(files[0])
    found = "several .pt files" if files else "no model.bin, no .safetensors and no .pt file"
    raise ModelError(f"{path} has {found}: no Whisper model that can be read")


def write_openai(model_dir: Path, target: Path) -> None:
    """Write a model as OpenAI's ``.pt`` file, with its numbers as they are.

    Args:
        model_dir: What ``load_checkpoint`` reads.
        target: The file, such as ``tiny.en.pt``; its name tells other software which model it is.

    Raises:
        ModelError: There is no such model, or the format cannot hold it.

    """
    openai_format.write(load_checkpoint(model_dir), target)
