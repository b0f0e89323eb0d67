"""Indexes clips until it is killed: `indexing_process.py ROOT`."""

import sys
from pathlib import Path

from teachclip.stages.search.library import stage
from teachclip.stages.search.library.stage import index_videos

if __name__ == "__main__":
    stage.FRAMES_AT_ONCE = 1
    root = Path(sys.argv[1])
    index_videos([str(root / "clips")], root / "index", str(root / "student"), device="cpu", workers=1)
