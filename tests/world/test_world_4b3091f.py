"""A working folder that an earlier release left: this one reads it, goes on with it, and makes the same of it again.

`world-4b3091f.tar.gz` holds what the release of commit 4b3091f made of 14 drawn clips: frames, a teacher, a store of
its scores and the stores of both parts of two, a taught student, a training that SIGTERM stopped, an index; its
README.txt says what must work. A change that these tests refuse is one that breaks folders which users have: mend the
change. They know the command line and the files, no module, so they stand wherever the code moves.

That release weighed InfoNCE 1 by default, as c.yaml has it, which names no weight: what is made anew names it.

Documents, ids and digests are the same bytes everywhere. What is computed is within a bound, since other processors and
versions of torch round in other ways (docs/reference/determinism.md). Where arithmetic is that of the machine that made
the folder, a student is the same to the last bit and scores are to rounding; elsewhere those tests skip.
"""

import hashlib
import io
import json
import math
import os
import re
import runpy
import sys
import tarfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch

ARCHIVE = Path(__file__).with_name("world-4b3091f.tar.gz")
WORK, WHOLE, FRAMES = Path("work"), Path("work/scores.zarr"), Path("work/frames/00000.h5")
DEVICES = tuple(f"{section}.device=cpu" for section in ("score", "train", "evaluate", "search"))
AGAIN = ("train.run=runs/again", "train.loss.infonce=1")
STOPPED = ("train.run=runs/stopped", "train.epochs=200", "train.max_steps=1500", "train.checkpoint_seconds=1")

ARITHMETIC = "32edc3911f84280a"  # what `same_arithmetic` computes where the folder was made
COMPUTED = re.compile(r"xclip/(videos/\w+/\w+\.safetensors|tiles/dense/((coarse|coarse_codec|fine)/c\.|done/).+)")
HASH = re.compile(rb'"(checksum|blake2b)":"[0-9a-f]{32}"')  # of what is computed, in a marker
# The teacher's scale times docs/reference/determinism.md's widest bound and a step of a code.
LABEL_BOUND = 14.3 * (2e-5 + 2 / 65534)
ROUNDING = 14.3 * 5e-7  # measured: 6e-8 of raw scores
# Where that release itself went on from the stop: some losses, and the sum of those of steps 903 to 1500.
NEXT_LOSSES = {903: 2.984602689743042, 904: 5.745074272155762, 910: 5.353647232055664, 1000: 2.855844020843506}
ALL_NEXT_LOSSES = 2373.430914878845
TIMES = ("seconds", "data_wait", "images_per_second", "memory")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, unpacked, as the current one. An archive has whole seconds; the clips get back the times they had."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    for name, time in zip(table("ids"), table("mtimes"), strict=True):
        os.utime(name.decode(), ns=(int(time), int(time)))
    return tmp_path


@pytest.fixture
def same_arithmetic() -> None:
    """Only where torch computes the bits that it did for the one who made the folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patches, block = torch.nn.Conv2d(3, 32, 16, 16), torch.nn.TransformerEncoderLayer(32, 2, 128, 0.0, "gelu")
        optimiser = torch.optim.AdamW([*patches.parameters(), *block.parameters()], lr=1e-3)
        for _ in range(3):
            tokens = block(patches(torch.rand(2, 3, 64, 64)).flatten(2).permute(2, 0, 1))
            loss = torch.logsumexp(torch.nn.functional.normalize(tokens[0]) @ tokens[1].T, dim=1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    weights = b"".join(value.numpy().tobytes() for value in block.state_dict().values())
    found = hashlib.blake2b(weights, digest_size=8).hexdigest()
    if (found, torch.get_num_threads()) != (ARITHMETIC, 1):
        pytest.skip(f"machine, torch or threads round in another way ({found}) than where the folder was made")


def teachclip(*arguments: str, sets: tuple[str, ...] | None = None) -> Any:
    """What `python -m teachclip` prints with --json, once it has ended well; `sets` are for verbs with a CONFIG."""
    code, out, messages = ended(*arguments, sets=sets)
    assert code == 0, out + messages
    return json.loads(out)


def ended(*arguments: str, sets: tuple[str, ...] | None = None) -> tuple[int, str, str]:
    """With which code it ends, what it prints, and what it says meanwhile."""
    given = [] if sets is None else [f"--set={each}" for each in (*DEVICES, *sets)]
    out, messages = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["teachclip", *arguments, *given, "--json"]),
        redirect_stdout(out),
        redirect_stderr(messages),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_module("teachclip", run_name="__main__")
    assert isinstance(end.value.code, int)
    return end.value.code, out.getvalue(), messages.getvalue()


def table(name: str, shard: Path = FRAMES) -> np.ndarray:
    """A table of a shard of frames."""
    with h5py.File(shard) as file:
        return file[name][()]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def differing(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Files that only one has, or that have other bytes."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def lines(run: str) -> list[dict[str, Any]]:
    """The log of a run, without times."""
    text = (WORK / "runs" / run / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()]


def losses(run: str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(run) if line["kind"] == "train"}


def check_scores(store: Path) -> None:
    """A store is the complete one: same files, same documents, ids and digests, and scores within the bound."""
    made, stored = tree(store), tree(WHOLE)
    assert {name: len(data) for name, data in made.items()} == {name: len(data) for name, data in stored.items()}
    assert [name for name in differing(made, stored) if not COMPUTED.fullmatch(name)] == []
    markers = [name for name in made if "/done/" in name]
    assert [name for name in markers if HASH.sub(b"", made[name]) != HASH.sub(b"", stored[name])] == []
    assert teachclip("cache", "verify", str(store), "--full")["findings"] == []
    found = teachclip("cache", "diff", str(store), str(WHOLE))
    assert (found["fields"], found["changed_texts"], found["changed_videos"], found["pairs"]) == ([], 0, 0, 200)
    assert max(found["largest"], found["frame_largest"]) < LABEL_BOUND


@pytest.mark.parametrize(("store", "complete"), [("scores.zarr", 4), ("half.zarr", 2), ("other.zarr", 2)])
def test_every_store_is_whole(world: Path, store: str, complete: int) -> None:
    before = tree(WORK / store)
    found = teachclip("cache", "verify", f"work/{store}", "--full")
    assert found["teachers"] == [
        {
            "teacher": "xclip",
            "shards": 4,
            "complete": complete,
            "incomplete": 4 - complete,
            "features": 2,
            "findings": [],
        }
    ]
    assert found["findings"] == []
    assert differing(tree(WORK / store), before) == []


@pytest.mark.parametrize(("first", "second"), [("half.zarr", "other.zarr"), ("other.zarr", "half.zarr")])
def test_the_halves_are_merged_to_the_complete_store(world: Path, first: str, second: str) -> None:
    found = teachclip("cache", "merge", f"work/{first}", f"work/{second}")
    assert found["teachers"][0]["taken"] == 2
    assert differing(tree(WORK / first), tree(WHOLE)) == []


def test_nothing_is_scored_again(world: Path) -> None:
    before = tree(WHOLE)
    scored = teachclip("score", "c.yaml", sets=())["teachers"][0]
    assert (scored["shards_before"], scored["shards_now"], scored["new_pairs"]) == (4, 0, 0)
    assert differing(tree(WHOLE), before) == []


def test_half_a_store_is_scored_to_its_end(world: Path) -> None:
    before = tree(WORK / "half.zarr")
    scored = teachclip("score", "c.yaml", sets=("score.store=half.zarr",))["teachers"][0]
    assert (scored["shards_before"], scored["shards_now"], scored["new_pairs"]) == (2, 2, 0)
    after = tree(WORK / "half.zarr")
    assert [name for name in before if after.get(name) != before[name]] == []
    check_scores(WORK / "half.zarr")


def test_a_new_store_has_the_same_documents_ids_and_digests(world: Path) -> None:
    scored = teachclip("score", "c.yaml", sets=("score.store=anew.zarr",))["teachers"][0]
    assert (scored["shards_before"], scored["shards_now"], scored["new_pairs"]) == (0, 4, 200)
    check_scores(WORK / "anew.zarr")


@pytest.mark.parametrize("store", ["half.zarr", "anew.zarr"])
def test_scores_are_the_same_to_rounding(same_arithmetic: None, world: Path, store: str) -> None:
    """Later releases split sums up in other ways, and raise no version for it."""
    teachclip("score", "c.yaml", sets=(f"score.store={store}",))
    found = teachclip("cache", "diff", f"work/{store}", str(WHOLE))
    assert found["pairs"] == 200
    assert max(found["largest"], found["frame_largest"]) < ROUNDING


def test_the_stored_scores_teach(world: Path) -> None:
    result = teachclip("train", "c.yaml", sets=AGAIN)
    assert (result["steps"], result["teachers"], result["texts"], result["videos"]) == (60, ["xclip"], 20, 10)
    made, stored = losses("again"), losses("taught")
    assert len(made) == 60
    assert all(map(math.isfinite, made.values()))
    assert made == pytest.approx(stored, rel=1e-4)
    # The digests of captions, frames and scores, and every setting that counts.
    assert (WORK / "runs/again/run.json").read_bytes() == (WORK / "runs/taught/run.json").read_bytes()


def test_a_student_is_the_same_to_the_last_bit(same_arithmetic: None, world: Path) -> None:
    features = tree(WORK / "features")
    teachclip("train", "c.yaml", sets=AGAIN)
    assert lines("again") == lines("taught")
    again, taught = (WORK / "runs" / name / "best.safetensors" for name in ("again", "taught"))
    assert again.read_bytes() == taught.read_bytes()
    assert differing(tree(WORK / "features"), features) == []  # the frozen trunk has seen these videos already


def test_a_finished_run_is_only_told(world: Path) -> None:
    before, result = tree(WORK / "runs/taught"), json.loads((WORK / "runs/taught/result.json").read_text())
    told = teachclip("train", "c.yaml", sets=("train.run=runs/taught",))
    assert told == result | {"already_done": True}
    assert differing(tree(WORK / "runs/taught"), before) == []


def test_the_stopped_run_goes_on(world: Path) -> None:
    before = tree(WORK / "runs/stopped")
    result = teachclip("train", "c.yaml", sets=STOPPED)
    assert (result["steps"], result["already_done"]) == (1500, False)
    after = tree(WORK / "runs/stopped")
    assert after["metrics.jsonl"].startswith(before["metrics.jsonl"])
    assert [entry["from_step"] for entry in json.loads(after["environment.json"])] == [0, 902]
    assert [name for name in after if name.endswith(".state")] == []
    assert (after["run.json"], after["config.yaml"]) == (before["run.json"], before["config.yaml"])
    made = losses("stopped")
    assert list(made) == list(range(1, 1501))
    assert all(map(math.isfinite, made.values()))
    assert {step: made[step] for step in NEXT_LOSSES} == pytest.approx(NEXT_LOSSES, rel=1e-4)


def test_runs_stay_what_they_are_where_a_default_has_changed(world: Path) -> None:
    """c.yaml names no weight of InfoNCE: its runs keep 1, a new one takes the default of today."""
    stays = "train.loss.infonce stays 1.0, with which this run was begun; the default is 0.2 now"
    for sets in (("train.run=runs/taught",), STOPPED):
        code, _, messages = ended("train", "c.yaml", sets=sets)
        assert (code, messages.count(stays)) == (0, 1), messages
    before = tree(WORK / "runs/taught")
    for sets, field in (
        (("train.run=runs/taught", "train.loss.infonce=0.2"), "train.loss.infonce"),
        (("train.run=runs/taught", "train.max_steps=80"), "train.max_steps"),
    ):
        code, out, messages = ended("train", "c.yaml", sets=sets)
        assert code != 0
        assert f"made from something else ({field})" in out + messages
    assert differing(tree(WORK / "runs/taught"), before) == []
    teachclip("train", "c.yaml", sets=("train.run=runs/new",))
    new, taught = (json.loads((WORK / "runs" / name / "run.json").read_text()) for name in ("new", "taught"))
    assert {key: (taught[key], new[key]) for key in taught if taught[key] != new[key]} == {
        "train.loss.infonce": (1.0, 0.2)
    }
    teachclip("train", "c.yaml", sets=("train.run=runs/further", "train.init=runs/taught"))
    code, _, messages = ended("report", "work/runs/taught", "work/runs/new")
    assert code == 0, messages
    page = Path("report.html").read_text().partition("Settings that differ")[2]
    assert "train.loss.infonce" in page


def test_the_stopped_run_ends_as_it_would_have(same_arithmetic: None, world: Path) -> None:
    features = tree(WORK / "features")
    teachclip("train", "c.yaml", sets=STOPPED)
    assert math.fsum(loss for step, loss in losses("stopped").items() if step > 902) == ALL_NEXT_LOSSES
    assert differing(tree(WORK / "features"), features) == []


@pytest.mark.parametrize("run", ["taught", "stopped", "xclip"])
def test_networks_are_measured_as_they_were(world: Path, run: str) -> None:
    chosen = [line for line in lines(run) if line["kind"] == "val" and line["selected"]][-1]
    found = teachclip("evaluate", "c.yaml", sets=(f"evaluate.run=runs/{run}", "evaluate.split=val"))
    assert (found["texts"], found["videos"]) == (4, 2)
    assert (found["t2v"], found["v2t"]) == (chosen["t2v"], chosen["v2t"])


def test_the_index_answers_as_it_is(world: Path) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (WORK / "index").iterdir()}

    before = state()
    queries = ("a grey clip", "brightness rises in clip 4")
    found = teachclip("search", "c.yaml", *queries, sets=("search.run=runs/taught", "search.top=14"))
    assert state() == before
    assert found["videos"] == 14
    for query, cosine in zip(found["queries"], (0.243375, 0.327370), strict=True):
        answers = query["answers"]
        assert sorted(answer["video"] for answer in answers) == [f"v{k:02}.mp4" for k in range(14)]
        assert answers[0]["cosine"] == pytest.approx(cosine, abs=1e-4)
        assert answers[-1]["video"] in ("v02.mp4", "v05.mp4", "v08.mp4", "v11.mp4")  # which look alike


def test_a_new_index_has_the_same_identity(world: Path) -> None:
    teachclip("search", "c.yaml", "a grey clip", sets=("search.run=runs/taught", "search.index=anew"))
    made, stored = (json.loads((WORK / name / "identity.json").read_text()) for name in ("anew", "index"))
    vectors = [np.load(WORK / name / each["vectors"]["file"]) for name, each in (("anew", made), ("index", stored))]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)
    assert (made | {"vectors": None}) == (stored | {"vectors": None})


def test_nothing_is_decoded_again(world: Path) -> None:
    before = tree(WORK / "frames")
    prepared = teachclip("prepare", "c.yaml", sets=())
    assert (prepared["videos"], prepared["counts"], prepared["decoded"]) == (14, {"ok": 14}, 0)
    assert differing(tree(WORK / "frames"), before) == []


def test_new_frames_have_the_same_documents_and_digests(world: Path) -> None:
    assert teachclip("prepare", "c.yaml", sets=("prepare.frames=anew",))["decoded"] == 14
    assert (WORK / "anew/frames.json").read_bytes() == (WORK / "frames/frames.json").read_bytes()
    new = WORK / "anew/00000.h5"
    with h5py.File(new) as made, h5py.File(FRAMES) as stored:
        later = {"decoders", "readers", "contents"}  # which shards of version 2 have
        assert {k: (v.dtype, v.shape) for k, v in made.items() if k not in later} == {
            k: (v.dtype, v.shape) for k, v in stored.items()
        }
        names = set(stored) - {"frames", "digests"}
    for name in names:
        np.testing.assert_array_equal(table(name, new), table(name), err_msg=name)
    pixels = table("frames", new).astype(int) - table("frames")
    assert np.abs(pixels).max() <= 2  # another FFmpeg may round colours otherwise
    if not pixels.any():
        np.testing.assert_array_equal(table("digests", new), table("digests"))


def test_the_runs_fill_a_page(world: Path) -> None:
    teachclip("report", "work/runs/taught", "work/runs/stopped", "work/runs/xclip")
    page = Path("report.html").read_text()
    assert all(name in page for name in ("taught", "stopped", "xclip"))
