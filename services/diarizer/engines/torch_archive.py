"""Weights out of files that torch saved, without torch.

A file is a ZIP archive: a pickle that refers to storages, and the storages as plain numbers. The
pickle is read by an interpreter that knows tensors and plain data; whatever else it names becomes
an inert object, so no code of the file ever runs.

Source: PyTorch, ``docs/source/notes/serialization.rst`` and ``torch/serialization.py``.
"""

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.audio import FloatArray
from services.common.models import ModelError

_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}

_DAMAGE = (
    # Of the archive: also what makes it look encrypted, or compressed in a way of its own.
    *(RuntimeError, zlib.error, struct.error),
    *(pickle.UnpicklingError, EOFError, TypeError, AttributeError, IndexError),
    # Of sizes that nothing has.
    *(MemoryError, OverflowError),
)


def load_weights(path: Path) -> dict[str, FloatArray]:
    """The tensors of a state dict, or of a checkpoint that has one as ``state_dict``.

    Raises:
        ModelError: There is no such file, or it is damaged or something else.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            [listing] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            with archive.open(listing) as stream:
                stored = _Reader(stream, archive, listing.removesuffix("data.pkl")).load()
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise ModelError(f"{path} holds no weights: {error}") from error
    except _DAMAGE as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    found = stored.get("state_dict", stored) if isinstance(stored, Mapping) else stored
    state = found if isinstance(found, Mapping) else {}
    tensors = {
        name: tensor.astype(np.float32)
        for name, tensor in state.items()
        if isinstance(tensor, np.ndarray)
    }
    if not tensors:
        raise ModelError(f"{path} holds no weights")
    return tensors


class _Inert:
    """Stands for anything that is not needed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        return _DTYPES.get(name, _Inert) if module == "torch" else _Inert

    def persistent_load(self, pid: Any) -> NDArray[np.generic]:
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError(f"a storage of numbers that are not known: {pid}")
        return np.frombuffer(self._archive.read(f"{self._folder}data/{key}"), dtype, count=size)


def _tensor(
    storage: NDArray[np.generic],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: object,
) -> NDArray[np.generic]:
    """As ``torch._utils._rebuild_tensor_v2``; strides count numbers."""
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if min((offset, *shape, *strides)) < 0 or offset + reach >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
