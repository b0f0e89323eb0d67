"""`teachclip features` on small features: what a user sees, and that the examples of its help work."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from teachclip.pipeline.cli.features import EXAMPLES
from typer.testing import Result

type Invoke = Callable[..., Result]


@pytest.fixture
def own(folder: Path) -> Path:
    """`own_videos.yaml` with an expert and a text encoder of two videos out of three."""
    rng = np.random.default_rng(0)
    (folder / "captions.csv").write_text("video,caption\na.mp4,a cat\nb.mp4,a dog\nb.mp4,a hound\nc.mp4,nothing\n")
    (folder / "audio.pkl").write_bytes(pickle.dumps({"a": rng.random((2, 4)), "b": rng.random((3, 4)), "c": np.nan}))
    words = {"a": [rng.random((2, 3))], "b": [rng.random((2, 3))] * 2, "c": [rng.random((1, 3))]}
    (folder / "words.pkl").write_bytes(pickle.dumps(words))
    entries = {"experts": [{"name": "audio", "file": "audio.pkl"}], "texts": [{"name": "w2v", "file": "words.pkl"}]}
    (folder / "own_videos.yaml").write_text(yaml.dump({"data": {"val_fraction": 0.0}, "features": entries}))
    return folder


def test_it_shows_what_there_is(invoke: Invoke, own: Path) -> None:
    result = invoke("features", "own_videos.yaml", "--quiet")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["name", "of", "width", "videos", "ok", "missing", "absent", "rows", "disk"]
    assert lines[1].split()[:8] == ["audio", "experts", "4", "3", "2", "1", "0", "5"]
    assert lines[2].split()[:8] == ["w2v", "texts", "3", "3", "3", "0", "0", "7"]
    assert lines[3].startswith("made now: 6 in ")
    assert lines[4] == "1 video has no expert at all, and are left out: c.mp4"
    again = invoke("features", "own_videos.yaml", "--quiet").stdout.splitlines()
    assert again[3] == "made now: nothing, all was there"
    assert invoke("features", "own_videos.yaml", "--info").stdout.splitlines() == lines[:3]


@pytest.mark.parametrize("line", [line.strip() for line in EXAMPLES.splitlines()[2:]])
def test_examples(invoke: Invoke, own: Path, line: str) -> None:
    assert invoke("features", "own_videos.yaml").exit_code == 0
    result = invoke(*line.split()[1:])
    assert result.exit_code == 0, result.stderr
    if "--json" in line:
        assert [check["wrong"] for check in json.loads(result.stdout)] == [0, 0]


def test_damage_is_told_with_what_helps(invoke: Invoke, own: Path) -> None:
    assert invoke("features", "own_videos.yaml").exit_code == 0
    path = own / "work/experts/videos/audio/00000.safetensors"
    data = path.read_bytes()
    values = np.frombuffer(data, np.uint8).copy()
    length = int.from_bytes(data[:8], "little")
    values[8 + length + json.loads(data[8 : 8 + length])["rows"]["data_offsets"][0]] ^= 1
    path.write_bytes(values.tobytes())
    result = invoke("features", "own_videos.yaml", "--verify")
    assert result.exit_code == 1
    assert "features of 1 video are damaged" in result.stderr
    assert "00000.safetensors: the features of 'a.mp4' are not those that were written" in result.stderr
    assert "delete these files, then make them again: teachclip features own_videos.yaml" in result.stderr


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"a": np.zeros((1, 4)), "b": np.zeros((1, 5))}, "other widths than 4"),
        ({"x": np.zeros((1, 4))}, "the file has other videos than the captions"),
        ({"a": np.nan, "b": np.nan, "c": np.nan}, "none of the 3 videos has features"),
        ({"a": print}, "opcode STACK_GLOBAL (builtins print)"),
    ],
)
def test_bad_files_are_one_error_without_a_traceback(
    invoke: Invoke, own: Path, broken: dict[str, object], told: str
) -> None:
    (own / "audio.pkl").write_bytes(pickle.dumps(broken))
    result = invoke("features", "own_videos.yaml")
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert told in result.stderr
    assert str(own / "audio.pkl") in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_that_is_cut_off(invoke: Invoke, own: Path) -> None:
    (own / "audio.pkl").write_bytes((own / "audio.pkl").read_bytes()[:-30])
    result = invoke("features", "own_videos.yaml")
    assert result.exit_code == 1
    assert "not a pickle that can be read" in result.stderr
    assert "it may have been cut off; get it again" in result.stderr


def test_two_questions_at_a_time_are_refused(invoke: Invoke, own: Path) -> None:
    result = invoke("features", "own_videos.yaml", "--info", "--verify")
    assert result.exit_code == 2
    assert "--info and --verify are two questions" in result.stderr


def test_an_entry_of_two_sources_is_told_with_its_line(invoke: Invoke, own: Path) -> None:
    both = {"features": {"experts": [{"name": "audio", "file": "audio.pkl", "plugin": "m:C"}]}}
    (own / "own_videos.yaml").write_text(yaml.dump(both))
    result = invoke("features", "own_videos.yaml")
    assert result.exit_code == 2
    assert "an expert is one of file, model and plugin; audio has file and plugin" in result.stderr
