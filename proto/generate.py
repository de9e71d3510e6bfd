"""Generate the Python code of every contract: ``python proto/generate.py [OUT]``."""

import os
import subprocess
import sys
from pathlib import Path

PROTO = Path(__file__).parent
OUT = Path(sys.argv[1]) if len(sys.argv) > 1 else PROTO / "gen"

# protoc looks for the mypy plugins on PATH; they are installed beside this interpreter.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
OUT.mkdir(exist_ok=True)
subprocess.run(
    [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}"),
        *(f"--python_out={OUT}", f"--grpc_python_out={OUT}"),
        *(f"--mypy_out=quiet:{OUT}", f"--mypy_grpc_out=quiet,only_async:{OUT}"),
        *sorted(str(path) for path in (PROTO / "voxmesh").rglob("*.proto")),
    ],
    check=True,
)
