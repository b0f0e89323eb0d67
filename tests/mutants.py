"""Breaks the code in many small ways and shows what no test notices: `make mutants`, by hand; see docs/testing.md.

mutmut makes the mutants and runs the tests. It expects a package below `src/`, which this project's root is not, and it
writes beside what it breaks: so it works on a copy in build/mutants, and the working tree stays as it is.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIES = ROOT / "build/mutants"
LAYERS = ("cache", "configs", "pipeline", "stages")
BESIDE = ("tests", "docs")
SETTINGS = {
    "source_paths": ["src"],
    "also_copy": list(BESIDE),
    "do_not_mutate_patterns": [r"^\s*raise \w+Error\("],  # wording
    "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu"],
    # A child of a process that has run the tests finds their right results in memory that np.empty hands out again, so
    # that code which forgets to fill an array survives.
    "process_isolation": "forkserver",
    "use_git_change_detection": False,
}
NAMES = {0: "survived", 1: "killed", 3: "killed", 5: "no test", 33: "no test", None: "not run", -9: "killed"}
OTHER = "killed by time or a crash"
type Part = dict[str, list[str]]


def copy_of(name: str, part: Part) -> Path:
    """A project as mutmut expects it, of our sources and tests as they are now."""
    copy = COPIES / name
    shutil.rmtree(copy, ignore_errors=True)
    package, without = copy / "src/teachclip", shutil.ignore_patterns("__pycache__")
    for folder, target in [(layer, package) for layer in LAYERS] + [(folder, copy) for folder in BESIDE]:
        shutil.copytree(ROOT / folder, target / folder, ignore=without)
    for file in {*ROOT.glob("*.py")} - {ROOT / "setup.py"}:
        shutil.copy2(file, package)
    settings = SETTINGS | {
        "only_mutate": [f"src/teachclip/{source}" for source in part["source"]],
        "pytest_add_cli_args_test_selection": part["tests"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (copy / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), "utf-8")
    return copy


def mutmut(copy: Path, *arguments: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.setdefault("TEACHCLIP_SHARED", str(ROOT.parent / "shared"))
    return subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=copy, env=environment).returncode


def sample(copy: Path, size: int, seed: int) -> list[str]:
    """Names of so many mutants; none where there are no more than that, which means all."""
    mutmut(copy, "run", "none of them")  # makes the mutants, times the tests, and stops
    mutants = sorted(results(copy))
    return random.Random(seed).sample(mutants, size) if size < len(mutants) else []


def results(copy: Path) -> dict[str, str]:
    """What became of every mutant."""
    codes: dict[str, int | None] = {}
    for file in sorted((copy / "mutants").rglob("*.py.meta")):
        codes |= json.loads(file.read_text("utf-8"))["exit_code_by_key"]
    return {mutant: NAMES.get(code, OTHER) for mutant, code in codes.items()}


def main() -> int:
    """Exit code 1 when the tests of a part do not pass as the code is."""
    parts: dict[str, Part] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="mutants that are tested at a time")
    parser.add_argument("--sample", type=int, metavar="N", help="at most so many mutants of each part, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.parts) - parts.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    lines = []
    for name in options.parts or parts:
        copy = copy_of(name, parts[name])
        chosen = sample(copy, options.sample, options.seed) if options.sample else []
        if mutmut(copy, "run", "--max-children", str(options.jobs), *chosen):
            return 1
        found = results(copy)
        for mutant, what in found.items():
            if what not in ("killed", "not run", OTHER):
                mutmut(copy, "show", mutant)
        counts = ", ".join(f"{count} {what}" for what, count in sorted(Counter(found.values()).items()))
        lines.append(f"{name}: {len(found)} mutants: {counts}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
