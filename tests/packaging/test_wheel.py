"""What users get: a wheel that holds everything it needs and nothing else, and works away from the checkout; or the
checkout itself, installed so that it can be edited. Type checkers see both."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import teachclip

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ("cache", "configs", "pipeline", "stages")
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "*.npz")
OFFLINE = ("--no-index", "--no-deps")
MADE = {"build", "dist", "demo", "work"}  # in the checkout itself, by commands that run there


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=200
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout as it stands."""
    folder = tmp_path_factory.mktemp("checkout") / "source"
    folder.mkdir()
    for path in ROOT.iterdir():
        if path.name in MADE or LEFT_OUT(str(ROOT), [path.name]):
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True, ignore=LEFT_OUT)
        else:
            shutil.copy2(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Its wheel, built offline."""
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", *OFFLINE, "--no-build-isolation"),
        *("--wheel-dir", source.parent, source),
        cwd=source.parent,
    )
    return next(source.parent.glob("teachclip-*.whl"))


def installed(folder: Path, *what: str | Path) -> Path:
    """`bin` of a new environment with this one's dependencies, without the checkout, and with `what` installed."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A folder named in a .pth file is searched, but its own .pth files, the checkout's among them, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin/python"
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--ignore-installed")
    run(*install, *OFFLINE, *what, cwd=folder)
    return folder / "bin"


@pytest.fixture(scope="module")
def elsewhere(wheel: Path) -> Path:
    """`bin` of an environment with the wheel."""
    return installed(wheel.parent / "from-wheel", wheel)


@pytest.fixture(scope="module")
def editable(source: Path) -> Path:
    """`bin` of an environment with the copy as it stands: what is edited there counts at once."""
    return installed(source.parent / "edited", "--no-build-isolation", "--editable", source)


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    files = [ROOT / "__init__.py", ROOT / "errors.py", ROOT / "plurals.py", ROOT / "remedies.py", ROOT / "testing.py"]
    files += [ROOT / "py.typed"]
    files += (ROOT / "docs").rglob("*.md")
    for layer in LAYERS:
        kinds = ("*.py", "*.yaml", "*.css", "*.html", "*.js", "*.svg")
        files += [file for kind in kinds for file in (ROOT / layer).rglob(kind)]
    missing = {f"teachclip/{file.relative_to(ROOT)}" for file in files} - set(zipfile.ZipFile(wheel).namelist())
    assert missing == set()


def test_nothing_else_is_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"teachclip", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {name.split("/")[1] for name in names if name.startswith("teachclip/")} == {
        *("__init__.py", "__main__.py", "errors.py", "plurals.py", "remedies.py", "testing.py", "py.typed"),
        *LAYERS,
        "docs",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_works_without_the_checkout(elsewhere: Path, tmp_path: Path) -> None:
    where = run(elsewhere / "python", "-c", "import teachclip; print(teachclip.__file__)", cwd=tmp_path)
    assert where.startswith(str(elsewhere.parent))
    assert "prepare" in run(elsewhere / "teachclip", "--help", cwd=tmp_path)
    assert run(elsewhere / "teachclip", "--version", cwd=tmp_path).startswith("teachclip 0.")
    listed = run(elsewhere / "teachclip", "docs", cwd=tmp_path)
    assert f"folder  {Path(where.strip()).parent / 'docs'}\n" in listed
    page = run(elsewhere / "teachclip", "docs", "docs/guide/data.md", cwd=tmp_path)
    assert page == (ROOT / "docs/guide/data.md").read_text()
    template = run(elsewhere / "teachclip", "config", "template", cwd=tmp_path)
    (tmp_path / "own.yaml").write_text(template + "\n")
    shown = run(elsewhere / "teachclip", "config", "show", "own.yaml", "--set", "train.seed=7", cwd=tmp_path)
    assert "seed: 7" in shown
    assert f"captions: {tmp_path}/captions.csv" in shown


def test_what_is_edited_counts_at_once(editable: Path, source: Path, tmp_path: Path) -> None:
    assert run(editable / "teachclip", "--version", cwd=tmp_path).startswith("teachclip 0.")
    new = source / "stages/brand_new.py"
    new.write_text("print(__file__)\n")
    try:
        shown = run(editable / "python", "-c", "import teachclip.stages.brand_new", cwd=tmp_path)
    finally:
        new.unlink()
    assert Path(shown.strip()).resolve() == new


MYPY = """
[mypy]
strict = true
# Nothing of these is needed to see the package's own types, and torch alone takes a minute to read.
[mypy-torch.*,numpy.*,pydantic.*,pydantic_core.*,h5py.*,tensorstore.*,open_clip.*,faiss.*,av.*,regex.*,yaml.*]
follow_imports = skip
follow_imports_for_stubs = true
ignore_missing_imports = true
"""
USER = """
from pathlib import Path
from typing import assert_type

import teachclip
from teachclip import *

config = load_config(Path("own.yaml"))
assert_type(config, Config)
assert_type(config.train.batch_size, int)
assert_type(read_query_ranks(Path("ranks-test.npz")).metrics()["t2v"].r1, float)
score(config, part=WorkerPart.parse("0/8"))
assert_type(train(config).steps, int)
assert_type(ScoreStore.open(Path("scores.zarr")).teacher("xclip"), ScoreCache)
train("own.yaml")  # type: ignore[arg-type]
teachclip.no_such_name  # type: ignore[attr-defined]
"""


@pytest.mark.parametrize("kind", ["elsewhere", "editable"])
def test_type_checkers_see_every_public_name(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A name that a checker takes for Any, or does not find, makes an ignored mistake none, which is an error, too."""
    python = request.getfixturevalue(kind) / "python"
    each = [
        f"from teachclip import {name}\nno_number_{k}: int = {name}  # type: ignore[assignment]"
        for k, name in enumerate(teachclip.__all__)
    ]
    (tmp_path / "user.py").write_text(USER + "\n".join(each) + "\n")
    (tmp_path / "mypy.ini").write_text(MYPY)
    check = ("-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", os.devnull, "--python-executable", python)
    assert "no issues found in 1 source file" in run(sys.executable, *check, "user.py", cwd=tmp_path)
