"""What users get: the wheel holds everything it needs and nothing else, and works away from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("cache", "configs", "pipeline", "stages")
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "*.npz")
MADE = {"build", "dist", "demo", "work"}  # in the checkout itself, by commands that run there


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=200
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout as it stands, built offline in a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in [path.name for path in ROOT.iterdir()]:
        source = ROOT / name
        if name in MADE or LEFT_OUT(str(ROOT), [name]):
            continue
        if source.is_dir():
            shutil.copytree(source, folder / "source" / name, symlinks=True, ignore=LEFT_OUT)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy2(source, folder / "source" / name)
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder, folder / "source"),
        cwd=folder,
    )
    return next(folder.glob("teachclip-*.whl"))


@pytest.fixture(scope="module")
def elsewhere(wheel: Path) -> Path:
    """`bin` of an environment with the wheel and this one's dependencies, but without the checkout."""
    folder = wheel.parent / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin/python",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        wheel,
        cwd=folder,
    )
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A folder named in a .pth file is searched, but its own .pth files, the checkout's among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    files = [ROOT / "__init__.py", ROOT / "errors.py", ROOT / "py.typed"]
    for layer in LAYERS:
        files += [file for kind in ("*.py", "*.yaml", "*.css", "*.html") for file in (ROOT / layer).rglob(kind)]
    missing = {f"teachclip/{file.relative_to(ROOT)}" for file in files} - set(zipfile.ZipFile(wheel).namelist())
    assert missing == set()


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"teachclip", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {name.split("/")[1] for name in names if name.startswith("teachclip/")} == {
        *("__init__.py", "__main__.py", "errors.py", "py.typed"),
        *LAYERS,
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_works_without_the_checkout(elsewhere: Path, tmp_path: Path) -> None:
    where = run(elsewhere / "python", "-c", "import teachclip; print(teachclip.__file__)", cwd=tmp_path)
    assert where.startswith(str(elsewhere.parent))
    assert "prepare" in run(elsewhere / "teachclip", "--help", cwd=tmp_path)
    assert run(elsewhere / "teachclip", "--version", cwd=tmp_path).startswith("teachclip 0.")
    template = run(elsewhere / "teachclip", "config", "template", cwd=tmp_path)
    (tmp_path / "own.yaml").write_text(template + "\n")
    shown = run(elsewhere / "teachclip", "config", "show", "own.yaml", "--set", "train.seed=7", cwd=tmp_path)
    assert "seed: 7" in shown
    assert f"captions: {tmp_path}/captions.csv" in shown
