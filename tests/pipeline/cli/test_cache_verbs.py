"""`teachclip cache`: every help example runs on a real store; one clear message for every kind of bad input."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.scores.shard import marker_path, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import Tile, TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.stages.score.repair import RepairResult
from teachclip.stages.score.stage import ScoreResult
from typer.testing import Result

type Invoke = Callable[..., Result]

TEXTS, VIDEOS = 12, 5
VERBS = ("ls", "info", "estimate", "verify", "extend", "repair", "diff", "export", "import", "merge", "rm", "gc")
OF_A_STORE = [
    ["ls", "S"], ["info", "S"], ["verify", "S"], ["verify", "S", "--full"], ["diff", "S", "S"],
    ["export", "S", "xclip", "out"], ["merge", "S", "S2"], ["merge", "S2", "S"], ["rm", "S", "xclip", "--yes"],
    ["gc", "S"],
]  # fmt: skip


def make(path: Path, *names: str, shards: tuple[int, ...] = (0, 1, 2), shift: float = 0.0) -> Tile:
    """A store of these teachers, of three shards of four texts; the last one's tile."""
    for name in names:
        cache = ScoreStore.create(path).create_teacher(name, {"weights": name, "words": 8}, 100.0, "uint16", 2, True)
        texts = [(f"v{k % VIDEOS}.mp4#{k}", text_digest(f"{k}")) for k in range(TEXTS)]
        videos = [(f"v{k}.mp4", digest(f"{k}".encode())) for k in range(VIDEOS)]
        times = np.zeros((VIDEOS, 2))
        tile = cache.create_tile("dense", TileContents(texts, videos, np.arange(TEXTS) % VIDEOS, times), 4)
        scores = np.random.default_rng(1).normal(0.3 + shift, 0.1, (TEXTS, VIDEOS)).astype(np.float32)
        for shard in shards:
            write_shard(tile, shard, scores[shard * 4 : shard * 4 + 4], scores[shard * 4 : shard * 4 + 4, :2])
    return tile


@pytest.fixture
def store(folder: Path) -> Path:
    """work/scores.zarr with teachers xclip and ts2net."""
    make(folder / "work/scores.zarr", "xclip", "ts2net")
    return folder / "work/scores.zarr"


@pytest.fixture
def captions(folder: Path) -> None:
    rows = [f"v{k % VIDEOS}.mp4,caption {k},train" for k in range(TEXTS)]
    (folder / "captions.csv").write_text("\n".join(["video,caption,split", *rows]))
    with (folder / "own_videos.yaml").open("a") as file:
        file.write("score:\n  teachers: [{name: xclip, checkpoint: runs/teacher}]\n")


def examples(invoke: Invoke, verb: str) -> list[str]:
    return re.findall(r"(?m)^ {4}(teachclip .*)$", invoke("cache", verb, "--help").stdout)


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_the_help_run(
    invoke: Invoke, verb: str, store: Path, captions: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(folder / "trial/scores.zarr", "xclip")
    for machine in ("machine1", "machine2"):
        make(folder / machine / "scores.zarr", "xclip")
    if verb == "import":
        assert invoke("cache", "export", "trial/scores.zarr", "xclip", "xclip-scores").exit_code == 0
        shutil.rmtree(store / "xclip")
    monkeypatch.setattr("teachclip.stages.score.repair.repair", lambda *_: RepairResult("s", 3, ()))
    monkeypatch.setattr("teachclip.stages.score.rescore.rescore", lambda *_: [])
    monkeypatch.setattr("teachclip.stages.score.stage.score", lambda *_: ScoreResult("s", (), 0, 1.0))
    commands = examples(invoke, verb)
    assert commands
    for command in commands:
        words = shlex.split(command)[1:]
        result = invoke(*words)
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert result.stdout
        if "--json" in words:
            json.loads(result.stdout)


@pytest.mark.parametrize("arguments", [*OF_A_STORE, ["estimate", "own_videos.yaml"], ["import", "packed", "S3"]])
def test_json_is_one_document(invoke: Invoke, arguments: list[str], store: Path, captions: None, folder: Path) -> None:
    make(folder / "S2", "xclip")
    assert invoke("cache", "export", "S2", "xclip", "packed").exit_code == 0
    (folder / "S").symlink_to(store)  # a store may be reached by a link; there may be none inside
    if arguments[0] == "diff":
        arguments = ["diff", "S:xclip", "S:ts2net"]
    result = invoke("cache", *arguments, "--json", "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    assert isinstance(json.loads(result.stdout), dict)


def test_ls_and_info_show_what_is_there(invoke: Invoke, store: Path) -> None:
    marker_path(ScoreStore.open(store).teacher("xclip").tiles[0], 1).unlink()
    (store / "ts2net/zarr.json").write_text("{}")
    lines = invoke("cache", "ls", "work/scores.zarr").stdout.splitlines()
    assert lines[0].split("  ")[0] == "teacher"
    assert lines[1].split()[:5] == ["ts2net", "-", "-", "-", "-"]
    assert "damaged" in lines[1]
    assert lines[2].split()[:8] == ["xclip", "1", "12", "5", "uint16", "2", "of", "3"]
    assert lines[3].startswith("damaged: work/scores.zarr/ts2net/zarr.json: ")
    shown = invoke("cache", "info", "work/scores.zarr", "xclip").stdout
    for expected in ("60 pairs of 12 texts and 5 videos", "100 (label = score x scale)", "words", "2 of 3"):
        assert expected in shown


def test_verify_names_file_and_reason_and_exits_with_1(invoke: Invoke, store: Path) -> None:
    tile = ScoreStore.open(store).teacher("xclip").tiles[0]
    path = tile.folder / "coarse/c.1.0"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    assert invoke("cache", "verify", str(store)).exit_code == 0
    result = invoke("cache", "verify", str(store), "--full")
    assert result.exit_code == 1
    assert f"{marker_path(tile, 1)}: coarse/c.1.0 has other bytes than were written" in result.stdout
    assert "teachclip cache repair CONFIG" in result.stdout
    found = json.loads(invoke("cache", "verify", str(store), "--full", "--json").stdout)
    assert [(f["teacher"], f["tile"], f["shard"]) for f in found["findings"]] == [("xclip", "dense", 1)]
    (tile.folder / "text_ids/c.0").write_bytes(b"")
    result = invoke("cache", "verify", str(store))
    assert result.exit_code == 1
    assert f"teachclip cache rm {store} xclip" in result.stdout


def test_estimate_gives_bytes_and_no_time_that_was_not_measured(invoke: Invoke, captions: None, folder: Path) -> None:
    lines = invoke("cache", "estimate", "own_videos.yaml").stdout.splitlines()
    assert lines[1].endswith("not measured")
    assert lines[-1] == (
        "no frames are prepared yet: every video of the caption file is taken for usable; 4 have no file"
    )
    assert not (folder / "work").exists()
    tile = make(folder / "fast.zarr", "xclip")
    for shard in range(3):
        os.utime(marker_path(tile, shard), (shard, shard))
    result = invoke("cache", "estimate", "own_videos.yaml", "--like", "fast.zarr")
    assert "not measured" in result.stdout  # three shards are too few


def test_merge_shows_other_bits_and_damage(invoke: Invoke, folder: Path) -> None:
    make(folder / "a.zarr", "xclip", shards=(0, 1))
    tile = make(folder / "b.zarr", "xclip", shards=(0, 2), shift=0.01)
    (tile.folder / "fine/c.2.0").write_bytes(b"")
    result = invoke("cache", "merge", "a.zarr", "b.zarr")
    assert result.exit_code == 1
    assert "b.zarr: xclip/dense: shard 0: " in result.stdout
    assert "coarse_codec/c.0.0, fine/c.0.0" in result.stdout
    assert "fine/c.2.0 has 0 bytes" in result.stdout


def test_rm_asks(invoke: Invoke, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("cache", "rm", str(store), "xclip")
    assert (result.exit_code, result.stderr.splitlines()) == (
        2,
        ["error: nobody is there to ask", "to remove without asking: --yes"],
    )
    for answer, left in ((False, True), (True, False)):
        monkeypatch.setattr("teachclip.pipeline.cli.groups.cache.verbs._somebody", lambda: True)
        monkeypatch.setattr("typer.confirm", lambda *_, answer=answer, **__: answer)
        result = invoke("cache", "rm", str(store), "xclip")
        assert (store / "xclip").exists() == left
        assert result.exit_code == left


def bad(invoke: Invoke, *arguments: str) -> str:
    """What a verb says of bad input: the first line, without a traceback; with --json a document too."""
    result = invoke("cache", *arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "unexpected" not in result.output
    assert result.stderr.startswith("error: ")
    assert json.loads(invoke("cache", *arguments, "--json").stdout)["error"]["exit_code"] == 1
    return result.stderr


@pytest.mark.parametrize("arguments", OF_A_STORE)
def test_bad_stores_get_one_clear_message(invoke: Invoke, arguments: list[str], folder: Path) -> None:
    make(folder / "S2", "xclip")
    assert "there is no score store" in bad(invoke, *arguments)
    (folder / "S").mkdir()
    (folder / "S/.zgroup").write_text("{}")
    assert "Zarr v2" in bad(invoke, *arguments)
    (folder / "S/.zgroup").rename(folder / "S/zarr.json")
    assert "damaged" in bad(invoke, *arguments)
    document = (folder / "S2/zarr.json").read_bytes()
    (folder / "S/zarr.json").write_bytes(document[:-5])
    assert "S/zarr.json" in bad(invoke, *arguments)
    (folder / "S/zarr.json").unlink()
    (folder / "S/zarr.json").symlink_to(folder / "S2/zarr.json")
    assert "links are not followed" in bad(invoke, *arguments)


@pytest.mark.parametrize("arguments", [a for a in OF_A_STORE if a[0] in ("info", "diff", "export", "merge")])
def test_a_truncated_teacher_is_named(invoke: Invoke, arguments: list[str], folder: Path) -> None:
    make(folder / "S", "xclip")
    make(folder / "S2", "xclip")
    path = folder / "S/xclip/zarr.json"
    path.write_bytes(path.read_bytes()[:-5])
    assert "S/xclip/zarr.json: damaged" in bad(invoke, *arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("arguments", OF_A_STORE)
def test_no_permission_gets_one_clear_message(invoke: Invoke, arguments: list[str], folder: Path) -> None:
    make(folder / "S2", "xclip")
    make(folder / "S", "xclip")
    (folder / "S").chmod(0)
    try:
        bad(invoke, *arguments)
    finally:
        (folder / "S").chmod(0o755)


@pytest.mark.parametrize(
    ("verb", "message"),
    [("estimate", "frames"), ("repair", "there is no score store"), ("import", "there is no such folder")],
)
def test_the_others_say_what_is_missing(invoke: Invoke, verb: str, message: str, captions: None, folder: Path) -> None:
    if verb == "estimate":
        (folder / "work/frames").mkdir(parents=True)
        (folder / "work/frames/frames.json").write_text("{")
    arguments = ["packed", "S"] if verb == "import" else ["own_videos.yaml"]
    assert message in bad(invoke, verb, *arguments)


def test_repair_needs_a_teacher_that_is_configured(invoke: Invoke, store: Path, captions: None) -> None:
    result = invoke("cache", "repair", "own_videos.yaml", "--teacher", "drl")
    assert result.exit_code == 2
    assert "no teacher 'drl' in score.teachers" in result.stderr


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "merge", "rm", "gc"])
def test_looking_and_moving_import_no_torch(verb: str, store: Path, folder: Path) -> None:
    import subprocess

    make(folder / "S2", "xclip")
    arguments = {"merge": [str(store), "S2"], "rm": [str(store), "xclip", "--yes"]}.get(verb, [str(store)])
    program = (
        "import sys\nfrom teachclip.pipeline.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        '    sys.stderr.write(f\'{end.code} {sorted({"torch", "open_clip", "h5py"} & set(sys.modules))}\')\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "cache", verb, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert done.stderr == "0 []"
