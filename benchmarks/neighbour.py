"""A busy neighbour: what stage one, training, evaluation and the demo take while one core is taken by somebody else.

    python benchmarks/neighbour.py demo [--against CHECKOUT] [--rounds 3]

`demo` is a finished folder of `make demo`. Each command is run as a user runs it, in a process of its own: idle and
beside a process that keeps core 0 busy; with one thread, with all that torch takes by itself, and, where a checkout of
another release is named, with that one's command line. Ways take turns; whole processes, loading included. Prints
seconds (medians) and their ratio to one thread; writes neighbour.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _machine import machine

HERE = Path(__file__).parents[1]
ALONE = ("train.teachers=[]", "train.loss={infonce: 1, coarse: 0, fine: 0}")
SETS = {
    "score": ("score.store=FOLDER/s.zarr",),
    "train": (*ALONE, "train.max_steps=200", "train.validate_every=8", "train.run=FOLDER/run"),
    "evaluate": (),
}
COMMANDS = {verb: (verb, "SETTINGS", *(word for one in sets for word in ("--set", one))) for verb, sets in SETS.items()}
COMMANDS["demo"] = ("demo", "FOLDER/demo")


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Somebody who keeps core 0 busy, or nobody."""
    if not busy:
        yield
        return
    script = "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def seconds(command: Sequence[str], settings: Path, package: Path, threads: str | None) -> float:
    """What a whole process takes; what it makes is thrown away."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = threads
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "path").mkdir()
        (Path(folder) / "path/teachclip").symlink_to(package)
        environment["PYTHONPATH"] = str(Path(folder) / "path")
        words = [word.replace("SETTINGS", str(settings)).replace("FOLDER", folder) for word in command]
        began = time.perf_counter()
        line = [sys.executable, "-m", "teachclip", *words, "--quiet"]
        subprocess.run(line, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        return time.perf_counter() - began


def main() -> None:
    """Measure, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--against", type=Path, help="a checkout of another release")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("neighbour.json"))
    given = parser.parse_args()
    ways: dict[str, tuple[Path, str | None]] = {"one thread": (HERE, "1"), "as it is": (HERE, None)}
    if given.against:
        ways["before"] = (given.against.absolute(), None)
    settings, rows = (given.demo / "demo.yaml").absolute(), []
    for name in given.commands:
        for busy in (False, True):
            taken: dict[str, list[float]] = {way: [] for way in ways}
            with neighbour(busy):
                for _ in range(given.rounds):
                    for way, (package, threads) in ways.items():
                        taken[way].append(seconds(COMMANDS[name], settings, package, threads))
            medians = {way: statistics.median(each) for way, each in taken.items()}
            ratios = {way: median / medians["one thread"] for way, median in medians.items()}
            rows.append({"command": name, "busy": busy, "seconds": taken, "medians": medians, "ratios": ratios})
            print(rows[-1], file=sys.stderr, flush=True)
    print(f"{machine()}; whole processes, medians of {given.rounds}\n")
    print(f"| command | neighbour | {' | '.join(f'{way}, s | over one thread' for way in ways)} |")
    print("|---" * (2 + 2 * len(ways)) + "|")
    for row in rows:
        cells = " | ".join(f"{row['medians'][way]:.1f} | {row['ratios'][way]:.2f}" for way in ways)
        print(f"| {row['command']} | {'busy' if row['busy'] else 'none'} | {cells} |")
    given.out.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
