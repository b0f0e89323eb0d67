"""Ctrl-C while a job is handed to a worker leaves nothing behind that crashes the interpreter."""

import subprocess
import sys

SCRIPT = """
import gc
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from teachclip.stages.data.video.workers import _Worker

def interrupted(self, data, write=None):
    raise KeyboardInterrupt

worker = _Worker.__new__(_Worker)
worker.connection, other = multiprocessing.Pipe()
Connection._send = interrupted
for _ in range(20):
    try:
        worker.give(0, ("a.mp4", Path("/videos/a.mp4"), False))
    except KeyboardInterrupt as error:
        cycle = [error]
        cycle.append(cycle)
        del cycle
gc.collect()
"""


def test_interrupted_hand_over_is_collected_in_silence() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
