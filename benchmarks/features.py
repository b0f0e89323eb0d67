"""The memory and time that `teachclip features` takes for pickles larger than memory should hold.

    python benchmarks/features.py [--videos 1050 --megabytes 4] [--captions 64000 --words 10]

Two files: an expert, a sequence of so many megabytes for every video; and words of captions, ten a video, 1,600 numbers
each. Each becomes a cache in a process of its own, whose largest resident set is told beside that of one which only
imports. The files are deleted when they are measured.
"""

import argparse
import csv
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _machine import machine

IMPORTS = "import torch\nfrom teachclip.stages.prepare.features.stage import features"
MAKE = f"""
import sys, json
{IMPORTS}
from teachclip.configs.schema import Config
features(Config.model_validate(json.loads(sys.argv[1])))
"""
GB = 10**9
EACH, WIDTH = 10, 1600  # captions of a video, numbers of a word


def peak(code: str, *arguments: str) -> tuple[float, float]:
    """Largest resident set of a process, in GB, and its seconds."""
    told = "\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    begun = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code + told, *arguments], capture_output=True, text=True, check=True)
    return int(ran.stdout.split()[-1]) * 1024 / GB, time.perf_counter() - begun


def write_captions(path: Path, videos: int, each: int) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption", "split"])
        rows.writerows((f"v{k}", f"caption {n} of {k}", "train") for k in range(videos) for n in range(each))


def write_pickle(path: Path, values: dict[str, object]) -> float:
    """Write a pickle in which no array is another one again; its GB."""
    with path.open("wb") as file:
        pickler = pickle.Pickler(file, 4)
        pickler.fast = True
        pickler.dump(values)
    return path.stat().st_size / GB


def measured(name: str, part: str, values: dict[str, object], each: int) -> None:
    """Print a row for one file."""
    with tempfile.TemporaryDirectory() as folder:
        path, captions = Path(folder) / f"{name}.pkl", Path(folder) / "captions.csv"
        write_captions(captions, len(values), each)
        size = write_pickle(path, values)
        told = {
            "work": folder,
            "data": {"captions": str(captions)},
            "features": {part: [{"name": name, "file": str(path)}]},
        }
        memory, seconds = peak(MAKE, json.dumps(told))
    print(f"{name:8}{size:12.2f}{memory:14.2f}{seconds:10.0f}", flush=True)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("videos", 1050), ("megabytes", 4), ("captions", 64_000), ("words", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    print(f"{machine()}\n{'file':8}{'GB':>12}{'peak, GB':>14}{'seconds':>10}")
    print(f"{'none':8}{0:12.2f}{peak(IMPORTS)[0]:14.2f}")
    sequence = np.ones((asked.megabytes * 250, 1000), np.float32)
    measured("expert", "experts", {f"v{k}": sequence for k in range(asked.videos)}, 1)
    words = [np.ones((asked.words, WIDTH), np.float32) for _ in range(EACH)]
    measured("words", "texts", {f"v{k}": words for k in range(asked.captions // EACH)}, EACH)


if __name__ == "__main__":
    main()
