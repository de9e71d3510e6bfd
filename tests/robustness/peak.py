"""Decodes recordings, and says by how much memory grew at most: ``... peak FILE...``, in bytes."""

import resource
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path

from services.common.errors import MeshError
from services.gateway.container import decode
from services.gateway.resampler import Limits


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    """Decode what the arguments name."""
    before = _peak_bytes()
    for name in sys.argv[1:]:
        data = iter([Path(name).read_bytes()])
        with suppress(MeshError):
            deque(decode(partial(next, data, None), Limits(60, 1 << 20)), maxlen=0)
    print(_peak_bytes() - before)


if __name__ == "__main__":
    main()
