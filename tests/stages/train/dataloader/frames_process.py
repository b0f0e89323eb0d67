"""One of several processes that keep all frames in shared memory: prints whether they are right, and which memory."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.stages.data.video_inputs import FrameInputs
from teachclip.stages.runtime.processes import joined
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.train.dataloader.resident_frames import frame_inputs


def main(folder: Path) -> None:
    cache = FrameCache.open(folder)
    with joined("cpu") as world:
        kept = frame_inputs("host", cache, cache.usable, torch.device("cpu"), world, Silent())
        every = np.arange(len(cache.usable))
        right = torch.equal(kept.read(every)[0], FrameInputs(cache, cache.usable).read(every)[0])
        maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "teachclip-frames" in line]
        json.dump({"right": right, "memory": sorted({line.split()[4] for line in maps})}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
