"""Where and with what a run is made: versions, device, command. Nobody's name or machine's: runs are published."""

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .... import __version__
from ....configs.changed_defaults import CHANGED_DEFAULTS, value_of
from ....configs.schema import Config
from ...runtime.processes import World


def environment(device: torch.device, from_step: int) -> dict[str, Any]:
    """What this process is, which works on a run from a step on; plain JSON."""
    cuda = device.type == "cuda"
    program = Path(sys.argv[0]).name
    return {
        "from_step": from_step,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["teachclip" if program == "__main__.py" else program, *sys.argv[1:]]),
        "teachclip": __version__,
        "defaults": {key: value_of(Config(), key) for key in CHANGED_DEFAULTS},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "open_clip": version("open_clip_torch"),
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,  # type: ignore[no-untyped-call]
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "device_memory": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "processes": World.current().ranks,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": f"{platform.system()} {platform.machine()}",
    }
