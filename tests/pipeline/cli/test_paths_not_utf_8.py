"""Paths that are not UTF-8, as old disks have them: used where they are read, refused in words where they cannot be."""

import io
import json
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.frames.record import VideoRecord, VideoStatus
from teachclip.cache.frames.shard import write_frame_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.loading import dump_config, load_config
from teachclip.configs.schema import Config, DataConfig, PrepareConfig
from teachclip.errors import CacheError, CheckpointError, ConfigError, DataError, printable
from teachclip.pipeline.cli.shell.output import Output
from teachclip.pipeline.cli.shell.remedies import Given
from teachclip.stages.data.dataset import locator, read_dataset
from teachclip.stages.data.video.decode import read_video
from teachclip.stages.data.video.source import TarPart
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from typer.testing import Result

type Invoke = Callable[..., Result]

LATIN = os.fsdecode("café".encode("latin-1"))  # a name of four bytes that is not UTF-8
SHOWN = r"caf\xe9"


def clip(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 4, 3), dtype=np.uint8)
    write_h264(path, noise.repeat(16, 1).repeat(16, 2), fps=1)
    return path


@pytest.fixture
def project(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The world's clips, captions and settings in a folder whose name is not UTF-8, which is the current one."""
    home = tmp_path / LATIN
    shutil.copytree(world.root / "clips", home / "clips")
    (home / "captions.csv").write_bytes((world.root / "captions.csv").read_bytes())
    document = yaml.safe_load(dump_config(world.config(search={"top": 2})))
    del document["work"], document["data"]
    (home / "mine.yaml").write_text(yaml.safe_dump(document | {"data": {"captions": "captions.csv", "videos": "."}}))
    (home / f"{LATIN}.yaml").write_text((home / "mine.yaml").read_text())
    return home


@pytest.fixture
def ask(project: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """A verb in that folder; what it makes lies elsewhere."""

    def run(verb: str, *arguments: str, config: str = "mine.yaml") -> Result:
        monkeypatch.chdir(project)
        return invoke(*verb.split(), config, *arguments, "--set", f"work={tmp_path}/work")

    return run


def test_a_project_in_such_a_folder_works_from_frames_to_answers(ask: Invoke, project: Path, tmp_path: Path) -> None:
    for decoder in ("auto", "pyav", "decord"):
        made = ask("prepare", f"--set=prepare.decoder={decoder}", f"--set=prepare.frames=by-{decoder}", "--json")
        assert made.exit_code == 0, made.stderr
        assert json.loads(made.stdout)["counts"] == {"ok": 24, "corrupt": 1}
    caches = [FrameCache.open(tmp_path / f"work/by-{decoder}") for decoder in ("auto", "pyav", "decord")]
    for video in caches[0].usable:
        assert len({cache.digest(video) for cache in caches}) == 1
    for verb in ("prepare", "train", "evaluate", "data check", "config show", "prepare --estimate"):
        result = ask(verb, config=f"{LATIN}.yaml")
        assert (result.exit_code, verb) == (0, verb), result.stderr
    assert f"{tmp_path}/{SHOWN}/captions.csv" in ask("data check").stdout
    assert f"{tmp_path}/{LATIN}/captions.csv" in json.dumps(
        json.loads(ask("data check", "--json").stdout), ensure_ascii=False
    )

    for query in ("a red square", LATIN):
        assert f"{tmp_path}/{SHOWN}/clips/" in ask("search", query).stdout
        document = json.loads(ask("search", query, "--json").stdout)
        assert document["queries"][0]["query"] == query
        assert all(Path(answer["path"]).is_file() for answer in document["queries"][0]["answers"])


def test_its_settings_and_its_page_can_be_read(ask: Invoke, invoke: Invoke, project: Path, tmp_path: Path) -> None:
    assert ask("prepare").exit_code == ask("train").exit_code == ask("evaluate").exit_code == 0
    run, page = tmp_path / "work/runs/student", project / f"{LATIN}.html"
    assert load_config(run / "config.yaml").data.captions == project / "captions.csv"
    result = invoke("report", str(run), "--out", str(page))
    assert result.exit_code == 0, result.stderr
    assert f"{SHOWN}.html" in result.stdout
    assert "cannot be used" not in result.stdout + result.stderr
    assert "<html" in page.read_text(encoding="utf-8")


def test_what_cannot_lie_there_is_refused_with_what_helps(
    world: Any, project: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(project)
    for config in ("mine.yaml", f"{LATIN}.yaml"):
        result = invoke("prepare", config)
        assert result.exit_code == 2
        assert f"{printable(config)}: work: {tmp_path}/{SHOWN}/work is not UTF-8" in result.stderr
        assert result.stderr.endswith("--set work=/other/folder\n")
    for key in ("train.run", "score.store", "search.index", "evaluate.run", "train.init", "prepare.frames"):
        result = invoke("config", "show", "mine.yaml", "--set", f"work={tmp_path}", "--set", f"{key}={LATIN}/x")
        assert (result.exit_code, key) == (2, key)
        assert f"error: --set {key}={SHOWN}/x: {key}: " in result.stderr
    checkpoint = project / "best.safetensors"
    checkpoint.write_bytes((8).to_bytes(8, "little") + b'{"a":{}}')
    for words in (
        ["checkpoint", "inspect", str(checkpoint)],
        *(["cache", verb, str(project / "x.zarr")] for verb in ("ls", "verify", "info", "gc")),
    ):
        result = invoke(*words)
        assert (result.exit_code, words) == (1, words), result.stderr
        assert "this path is not UTF-8" in result.stderr
        assert "rename it" in result.stderr
    network = build_network(world.config().train.network)
    with pytest.raises(CheckpointError, match="not UTF-8"):
        save_network(network, project / "own.safetensors")
    with pytest.raises(CacheError, match="not UTF-8"):
        ScoreStore.open(project / "x.zarr")
    with pytest.raises(ValueError, match=r"work: .*not UTF-8"):
        Config(work=project)


def test_a_file_that_is_not_there_is_told_and_the_command_can_be_pasted(
    project: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    result = invoke("prepare", f"no{LATIN}.yaml")
    assert result.exit_code == 2
    assert f"error: no{SHOWN}.yaml: no such file" in result.stderr
    hint = Given(Path(f"it's {LATIN}\\.yaml"), [f"data.videos={LATIN}"])
    words = str(hint)
    words.encode("ascii")
    told = subprocess.run(["bash", "-c", f"printf '%s\\0' {words}"], capture_output=True, check=True).stdout
    assert told.split(b"\0")[:3] == [os.fsencode(f"it's {LATIN}\\.yaml"), b"--set", os.fsencode(f"data.videos={LATIN}")]
    assert shlex.split(str(Given(Path("a b.yaml")))) == ["a b.yaml"]


def test_such_a_path_is_written_in_yaml_by_its_escape_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text('work: made\ndata: {videos: "caf\\udce9", captions: "x\\udcff.csv"}\n')
    config = load_config(tmp_path / "a.yaml")
    assert config.data.videos == tmp_path / LATIN
    (tmp_path / "b.yaml").write_bytes(dump_config(config).encode())
    assert load_config(tmp_path / "b.yaml") == config
    assert load_config(tmp_path / "a.yaml", [f"data.videos=/x/{LATIN}"]).data.videos == Path(f"/x/{LATIN}")
    (tmp_path / "c.yaml").write_bytes("data: {videos: café}\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert r'"\udce9"' in str(caught.value.hint)
    (tmp_path / "d.yaml").write_text('score: {teachers: [{name: "caf\\udce9", checkpoint: x}]}\n')
    with pytest.raises(ConfigError, match=r"score\.teachers\.0\.name: caf\\xe9"):
        load_config(tmp_path / "d.yaml")


@pytest.mark.parametrize("published", [True, False])
def test_a_file_under_such_a_name_is_found_by_nobody_and_told(tmp_path: Path, published: bool) -> None:
    clip(tmp_path / f"clips/{LATIN}.mp4")
    if published:
        (tmp_path / "test_list.txt").write_text("café\nother\n")
        (tmp_path / "captions_msvd.json").write_text(json.dumps({"café": ["x"], "other": ["y"]}))
        data = DataConfig(set="msvd", annotations=tmp_path, videos=tmp_path / "clips", splits=("test",))
    else:
        (tmp_path / "captions.csv").write_text("video,caption\ncafé.mp4,x\nother.mp4,y\n")
        data = DataConfig(captions=tmp_path / "captions.csv", videos=tmp_path / "clips", val_fraction=0.0)
    named, other = (video.instead for video in read_dataset(data).videos)
    assert named.startswith(r"there is 'caf\xe9.mp4' (not UTF-8; rename the file")
    assert other.startswith(r"1 of the names there is not UTF-8, as caf\xe9.mp4; rename the file")
    if not published:
        (tmp_path / "captions.jsonl").write_text(json.dumps({"video": f"{LATIN}.mp4", "caption": "x"}))
        with pytest.raises(DataError) as caught:
            read_dataset(DataConfig(captions=tmp_path / "captions.jsonl", videos=tmp_path / "clips"))
        assert r"a byte that is not UTF-8: caf\xe9.mp4); rename the file" in caught.value.details[0]


def test_such_names_in_and_of_shards_are_read(tmp_path: Path) -> None:
    shards = tmp_path / "shards" / LATIN
    shards.mkdir(parents=True)
    path = clip(tmp_path / "clip.mp4")
    with tarfile.open(shards / f"train{LATIN}.tar", "w") as tar:
        tar.add(path, f"{LATIN}.mp4")
        caption = tarfile.TarInfo(f"{LATIN}.txt")
        caption.size = 1
        tar.addfile(caption, io.BytesIO(b"x"))
        wrong = tarfile.TarInfo(f"wrong{LATIN}.json")
        wrong.size = 1
        tar.addfile(wrong, io.BytesIO(b"{"))
    data = DataConfig(set="webdataset", videos=tmp_path / "shards", val_fraction=0.0)
    dataset = read_dataset(data)
    (video,) = dataset.videos
    assert video.id == r"caf\xe9/traincaf\xe9/caf\xe9"
    assert dataset.left_out[0].startswith(r"caf\xe9/traincaf\xe9.tar: 'wrongcaf\xe9.json'")
    assert locator(data)(video.id) == rf"{shards}/train{LATIN}.tar/caf\xe9"
    assert isinstance(video.source, TarPart)
    settings = PrepareConfig(image_size=32, workers=1)
    for decoder in ("auto", "pyav", "decord"):
        record = read_video(video.id, video.source, settings.model_copy(update={"decoder": decoder}))
        assert (record.status.status, record.status.frames) == ("ok", 4)


def test_a_reason_that_names_such_a_path_is_kept(tmp_path: Path) -> None:
    record = VideoRecord(VideoStatus("a", "corrupt", f"cannot open {LATIN}"))
    write_frame_shard(tmp_path / "00000.h5", "0" * 32, [record], None)
    assert b"cannot open caf" in (tmp_path / "00000.h5").read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "utf-16"])
@pytest.mark.parametrize("name", [LATIN, "café", "かな", "\ud83d", "x"], ids=ascii)
def test_results_are_written_to_any_stream(encoding: str, name: str) -> None:
    results, messages = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    output = Output(stdout=results, stderr=io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace"))
    output.result({"path": name}, f"found {name}")
    output.info(f"info {name}")
    output.warn(f"warn {name}")
    output.failure("error", (name, name), name, None)
    results.seek(0)
    assert results.read().startswith("found ")
    as_json = Output(json=True, stdout=messages)
    as_json.result({"path": name})
    messages.seek(0)
    assert json.loads(messages.read()) == {"path": name}
