"""Models on ONNX Runtime, as services use it. For those that have it among their packages."""

from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

ERRORS: tuple[type[Exception], ...] = tuple(
    kind
    for kind in vars(ort_errors).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
"""What ONNX Runtime raises: its errors share no base."""


def open_session(model: bytes | Path, *, threads: int) -> onnxruntime.InferenceSession:
    """Prepare a model for this CPU. Any number of threads may run it at once.

    Args:
        model: A graph, or the file that holds one.
        threads: Cores for each run.

    Raises:
        One of ``ERRORS``: ONNX Runtime does not take it.

    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Between runs its cores belong to others.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Runs have ever other shapes: a plan of its memory would be kept for each, and an arena would
    # grow whenever they fit worse than before.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Its own logger writes plain text; what fails is raised anyway.
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
