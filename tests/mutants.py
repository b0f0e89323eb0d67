"""Breaks the code in many small ways and lists those that no test notices: `make mutants`, by hand; see docs/testing.md.

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
STATUS = {0: "survived", 1: "killed", 3: "killed", 5: "no test", 33: "no test", None: "not run"}  # else: timeout, crash
type Part = dict[str, list[str]]


def copy_of(name: str, part: Part) -> Path:
    """A project as mutmut expects it, with our sources and tests, made anew."""
    copy = COPIES / name
    shutil.rmtree(copy, ignore_errors=True)
    package = copy / "src/teachclip"
    package.mkdir(parents=True)
    for file in ROOT.glob("*.py"):
        if file.name != "setup.py":
            shutil.copy2(file, package)
    without = shutil.ignore_patterns("__pycache__")
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, package / layer, ignore=without)
    shutil.copytree(ROOT / "tests", copy / "tests", ignore=without)
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/teachclip/{source}" for source in part["source"]],
        "do_not_mutate_patterns": [r"^\s*raise \w+Error\("],  # wording
        "pytest_add_cli_args_test_selection": part["tests"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu"],
        "use_git_change_detection": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (copy / "pyproject.toml").write_text("\n".join([text, "[tool.mutmut]", *lines, ""]), "utf-8")
    return copy


def mutmut(copy: Path, *arguments: str) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.setdefault("TEACHCLIP_SHARED", str(ROOT.parent / "shared"))
    return subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=copy, env=environment).returncode


def results(copy: Path) -> dict[str, str]:
    """What became of every mutant."""
    found = {}
    for file in sorted((copy / "mutants").rglob("*.py.meta")):
        codes = json.loads(file.read_text("utf-8"))["exit_code_by_key"]
        found.update({mutant: STATUS.get(code, "timeout") for mutant, code in codes.items()})
    return found


def main() -> int:
    parts: dict[str, Part] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    for name in options.parts or parts:
        copy = copy_of(name, parts[name])
        mutmut(copy, "run", "--max-children", str(options.jobs))
        found = results(copy)
        print(name, dict(Counter(found.values())))
        for mutant, status in found.items():
            if status not in ("killed", "timeout"):
                print(status)
                mutmut(copy, "show", mutant)
    return 0


if __name__ == "__main__":
    sys.exit(main())
