"""Which engine runs a model. Each is imported only when it is chosen: one replica needs one."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from services.asr.config import Settings
from services.asr.engines.whisper_window import Framing
from services.asr.recognizer import Recognizer
from services.common import models
from services.common.models import ModelError

Engine: TypeAlias = Literal["onnx", "ctranslate2", "torch"]

_COMPUTE_TYPES = {"cpu": "int8", "cuda": "float16"}
_LIBRARIES: dict[Engine, tuple[str, ...]] = {
    "onnx": ("ctranslate2", "onnx", "onnxruntime"),
    "ctranslate2": ("ctranslate2",),
    "torch": ("torch",),
}


def load_engine(chosen: Settings, *, workers: int, threads: int) -> Recognizer:
    """Load the model that the settings name into the engine that fits.

    Args:
        chosen: The settings.
        workers: Batches that run at once.
        threads: CPU cores for each of them.

    Raises:
        ModelError: It is not installed, not whole, or not what the engine can run.
        DeviceError: The device is not there, or does not compute with the numbers chosen.

    """
    path = models.locate(chosen.model)
    engine = engine_of(chosen, path)
    if lacking := _lacking(engine):
        extra = "asr-torch" if engine == "torch" else "asr"
        raise ModelError(f"{path} needs {lacking[0]}: pip install 'voxmesh[{extra}]'")
    if engine == "onnx":
        return _onnx(chosen, path, workers, threads)
    if engine == "torch":
        return _torch(chosen, path, threads)
    return _ctranslate2(chosen, path, workers, threads)


def engine_of(chosen: Settings, path: Path) -> Engine:
    """The engine for a model, named or found by looking.

    Raises:
        ModelError: Settings ask for what the engine does not do.

    """
    of_torch = {
        "ASR_DEVICE=mps": chosen.device == "mps",
        "ASR_ALIGNMENT_HEADS": chosen.alignment_heads,
        "ASR_LORA": chosen.lora,
    }
    needs_torch = [name for name, asked in of_torch.items() if asked]
    beyond_onnx = {
        f"ASR_DEVICE={chosen.device}": chosen.device != "cpu",
        f"ASR_COMPUTE_TYPE={chosen.compute_type}": chosen.compute_type not in {"auto", "int8"},
        f"ASR_BEAM_SIZE={chosen.beam_size}": chosen.beam_size > 1,
    }
    needs_other = [name for name, asked in beyond_onnx.items() if asked]
    engine: Engine
    if chosen.engine != "auto":
        engine = chosen.engine
    elif needs_torch or _is_of_torch(path) or _lacking("ctranslate2"):
        engine = "torch"
    elif needs_other or not (path / "model.bin").is_file() or _lacking("onnx"):
        engine = "ctranslate2"
    else:
        engine = "onnx"
    if engine != "torch" and needs_torch:
        raise ModelError(f"{needs_torch[0]} works with ASR_ENGINE=torch alone")
    if engine == "onnx" and needs_other:
        raise ModelError(f"{needs_other[0]} does not work with ASR_ENGINE=onnx")
    if engine == "torch" and chosen.beam_size > 1:
        raise ModelError("torch decodes greedily: ASR_BEAM_SIZE has to be 1 with it")
    return engine


def _lacking(engine: Engine) -> list[str]:
    """What an engine needs and is not installed."""
    return [name for name in _LIBRARIES[engine] if find_spec(name) is None]


def _is_of_torch(path: Path) -> bool:
    """Whether a model is in a format that torch alone reads."""
    formats = ("*.safetensors", "*.pt")
    held = any(next(path.glob(pattern), None) for pattern in formats)
    return path.is_file() or (held and not (path / "model.bin").is_file())


def _framing(chosen: Settings) -> Framing:
    return Framing(pad_s=chosen.pad_s, min_s=chosen.min_window_s, bucket_s=chosen.bucket_s)


def _onnx(chosen: Settings, path: Path, workers: int, threads: int) -> Recognizer:
    from services.asr.engines.onnx_whisper import OnnxWhisper

    return OnnxWhisper(path, workers=workers, threads=threads, framing=_framing(chosen))


def _ctranslate2(chosen: Settings, path: Path, workers: int, threads: int) -> Recognizer:
    from services.asr.engines.ctranslate2_whisper import CTranslate2Whisper

    auto = chosen.compute_type == "auto"
    return CTranslate2Whisper(
        path,
        device=chosen.device,
        compute_type=_COMPUTE_TYPES[chosen.device] if auto else chosen.compute_type,
        workers=workers,
        threads=threads,
        beam_size=chosen.beam_size,
        framing=_framing(chosen),
    )


def _torch(chosen: Settings, path: Path, threads: int) -> Recognizer:
    from services.asr.engines.torch_whisper import TorchWhisper
    from services.asr.engines.whisper_weights import load_checkpoint

    return TorchWhisper(
        load_checkpoint(path),
        device=chosen.device,
        compute_type=chosen.compute_type,
        threads=threads,
        framing=_framing(chosen),
        alignment_heads=chosen.alignment_heads,
        lora=Path(chosen.lora).expanduser() if chosen.lora else None,
    )
