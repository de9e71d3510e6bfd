import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SERVICE = """
import numpy
from threadpoolctl import threadpool_info
from services.common.process import start
from services.common.settings import ServiceSettings

async def main(settings):
    print([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"])

start("test", ServiceSettings, main, reasons=())
"""


def test_numpy_computes_on_the_threads_of_the_service_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVICE],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "[1]\n"
