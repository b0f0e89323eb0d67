"""Exceptions become a message, the next command and an exit code."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from teachclip.errors import CacheError, CacheMismatchError, ConfigError, DataError, TeachclipError
from teachclip.pipeline.cli.shell.errors import Terminated, explain
from teachclip.pipeline.cli.shell.remedies import Given
from teachclip.remedies import Prepare, Remedy, Score
from typer.testing import Result


class OutOfMemoryError(RuntimeError):
    """What torch calls its own."""


type Fail = Callable[..., Result]


@pytest.fixture
def fail(invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Run `teachclip config show own_videos.yaml` with its work replaced by one that raises `error`."""

    def run(error: BaseException, *arguments: str, **environment: str) -> Result:
        def broken(*_: object) -> None:
            raise error

        monkeypatch.setattr("teachclip.pipeline.cli.groups.config.load_config", broken)
        return invoke("config", "show", "own_videos.yaml", *arguments, **environment)

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TeachclipError("it broke"), 1),
        (ConfigError("it broke"), 2),
        (DataError("it broke"), 1),
        (CacheMismatchError("it broke"), 1),
    ],
)
def test_our_errors_keep_their_exit_codes(fail: Fail, error: TeachclipError, code: int) -> None:
    result = fail(error)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "error: it broke\n")


def test_where_details_and_hint_are_shown(fail: Fail) -> None:
    error = CacheError(
        "shards are missing", where="work/frames", details=["00001.h5", "00007.h5"], hint=Remedy("make them", Prepare())
    )
    assert fail(error).stderr.splitlines() == [
        "error: work/frames: shards are missing",
        "  00001.h5",
        "  00007.h5",
        "make them: teachclip prepare own_videos.yaml",
    ]


def test_recommended_commands_can_be_pasted(fail: Fail) -> None:
    error = CacheError("no frames", hint=Remedy("make them", Prepare({"prepare.storage": "jpeg"})))
    assert fail(error, "--set", "work=my folder").stderr.splitlines()[-1] == (
        "make them: teachclip prepare own_videos.yaml --set 'work=my folder' --set prepare.storage=jpeg"
    )
    assert fail(CacheError("no frames", hint=Remedy("score", Score()))).stderr.endswith(
        "score: teachclip score own_videos.yaml\n"
    )


def test_json_tells_the_failure_on_stdout(fail: Fail) -> None:
    result = fail(ConfigError("no such key", where="a.yaml:3", hint="look"), "--json")
    facts = {"what": "a.yaml:3: no such key", "details": [], "hint": "look", "exit_code": 2}
    assert json.loads(result.stdout) == {"error": facts}
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Terminated(), 143)])
def test_a_stop_says_how_to_go_on(fail: Fail, error: BaseException, code: int) -> None:
    result = fail(error, "--set", "work=my folder")
    assert result.exit_code == code
    assert result.stderr.splitlines() == [
        "stopped; everything finished is kept",
        "go on with: teachclip config show own_videos.yaml --set 'work=my folder'",
    ]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.ENOENT, "no such file or folder"),
        (errno.EEXIST, "a file stands where a folder should be"),
    ],
)
def test_the_systems_errors_are_clear(fail: Fail, code: int, words: str) -> None:
    result = fail(OSError(code, os.strerror(code), "/data/frames"))
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("error: /data/frames: ")
    assert words in first
    assert second


@pytest.mark.parametrize(
    "error",
    [
        OSError(
            "Unable to synchronously flush file (file write failed: time = 1, errno = 28, error message = 'No space')"
        ),
        ValueError("RESOURCE_EXHAUSTED: Error writing local file [OS error 28: No space left on device]"),
    ],
)
def test_a_full_disk_is_seen_through_libraries(fail: Fail, error: Exception) -> None:
    assert fail(error).stderr.startswith("error: no space left on the disk\n")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")],
)
def test_out_of_memory_names_a_smaller_setting(error: Exception) -> None:
    failure = explain(error, "train", "teachclip train a.yaml")
    assert failure.lines == ("not enough memory on this machine",)
    assert failure.hint == "Take less at a time: teachclip train a.yaml --set train.chunk=16"
    assert failure.exit_code == 1


def test_out_of_memory_on_a_gpu_names_what_costs_no_time_first() -> None:
    failure = explain(OutOfMemoryError("CUDA out of memory"), "train", "teachclip train a.yaml")
    assert failure.lines == ("not enough memory on the GPU",)
    assert failure.hint is not None
    wanted = ["train a.yaml --set train.frames=stream", "expandable_segments:True", "train a.yaml --set train.chunk=16"]
    assert sorted(wanted, key=failure.hint.index) == wanted
    scoring = explain(OutOfMemoryError("CUDA out of memory"), "score", "teachclip score a.yaml")
    assert scoring.hint is not None
    assert "train.frames" not in scoring.hint


def test_the_unexpected_is_short_and_its_traceback_is_in_a_file(
    fail: Fail, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = fail(KeyError("a\nb"))
    assert result.exit_code == 70
    assert result.stderr.startswith("error: unexpected KeyError: 'a\\nb'\n")
    assert "Traceback" not in result.stderr
    found = re.search(rf"{tmp_path}/teachclip-\S+\.txt", result.stderr)
    assert found
    text = Path(found.group()).read_text()
    assert "Traceback" in text
    assert "teachclip config show own_videos.yaml" in text


def test_the_unexpected_where_nothing_can_be_written(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    result = fail(KeyError("x"))
    assert result.exit_code == 70
    assert "--debug" in result.stderr


@pytest.mark.parametrize(("arguments", "environment"), [(["--debug"], {}), ([], {"TEACHCLIP_DEBUG": "1"})])
def test_debug_shows_the_traceback(fail: Fail, arguments: list[str], environment: dict[str, str]) -> None:
    assert "Traceback" in fail(DataError("it broke"), *arguments, **environment).stderr


def test_a_mistake_in_a_config_needs_no_traceback_file(invoke: Callable[..., Result]) -> None:
    result = invoke("train", "own_videos.yaml", "--set", "train.bach_size=3")
    assert result.exit_code == 2
    assert result.stderr == "error: --set train.bach_size=3: no such key; did you mean train.batch_size?\n"


WAITING = """
import sys, time
from pathlib import Path
from teachclip.pipeline.cli import main
from teachclip.pipeline.cli.groups import config
def wait(path, sets):
    print("ready", file=sys.stderr, flush=True)
    time.sleep(1000)
config.load_config = wait
main.main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=["INT", "TERM", "HUP"]
)
def test_signals_end_the_process_cleanly(tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, "config", "show", "a.yaml"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.readline() == "ready\n"
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.wait(timeout=120) == code
    assert rest == "stopped; everything finished is kept\ngo on with: teachclip config show a.yaml\n"


def test_a_reader_that_goes_away_leaves_no_noise(folder: Path) -> None:
    code = (
        "import sys\nfrom teachclip.configs import loading\nfrom teachclip.pipeline.cli import main\n"
        "loading.dump_config = lambda _: sys.stdin.read() or 'text'\nmain.main()\n"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code, "config", "show", "own_videos.yaml"],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        cwd=folder,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=120) == 141


def test_no_setting_is_advised_where_none_is_taken() -> None:
    full = OSError(errno.ENOSPC, "full", "r.html")
    for given in (Given(), Given(Path("own.yaml"), (), ("teachclip", "denoise", "own.yaml", "--out", "x"))):
        assert explain(full, "report", "teachclip report r", given).hint == "Free some space, or name another disk."
    given = Given(Path("own.yaml"), (), ("teachclip", "train", "own.yaml"))
    assert (explain(full, "train", "", given).hint or "").endswith("train own.yaml --set work=/other/folder")


def test_a_full_disk_is_told_by_safetensors_too() -> None:
    error = type("SafetensorError", (Exception,), {})("IoError(Os { code: 28 }): No space left on device (os error 28)")
    assert explain(error, "push", "").lines == ("no space left on the disk",)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_cannot_be_written_is_one_message(option: str) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "teachclip", option], stdout=full, stderr=subprocess.PIPE, text=True, timeout=200
        )
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (1, "error: no space left on the disk")
    assert "Traceback" not in ended.stderr
