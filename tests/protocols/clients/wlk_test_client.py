"""WhisperLiveKit's own test client, with its own arguments, and nothing else of its package.

It decodes recordings with an ``ffmpeg`` that it finds in the path.
"""

import os
import runpy
import sys
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg

client = distribution("whisperlivekit").locate_file("whisperlivekit/test_client.py")
with TemporaryDirectory() as folder:
    (Path(folder) / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    sys.argv[0] = str(client)
    runpy.run_path(str(client), run_name="__main__")
