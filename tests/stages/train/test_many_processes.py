"""One process or many give the same student, in float64; what happens where one of them stops, dies or fails."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.errors import ConfigError
from teachclip.pipeline.cli.main import app
from teachclip.stages.runtime import processes as worlds
from teachclip.stages.runtime.processes import World, joined
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.train.dataloader.sampler import BatchSampler
from teachclip.stages.train.stage import train
from typer.testing import CliRunner

PROGRAM = Path(__file__).with_name("many_training.py")
ALIKE = 1e-9  # float64's rounding, of sums in another order, after some steps of AdamW
KEYS = ("loss", "infonce", "coarse", "fine", "auxiliary", "grad_norm")
OPTIM = {"lr": 1e-3, "trunk_lr": 1e-3, "freeze": "none"}
BASE = {"batch_size": 7, "epochs": 1, "tensorboard": False, "optim": OPTIM}
TAUGHT = {"teachers": ["xclip"], "loss": {"mask_same_video": True}}
TEMPERED = {"coarse_kind": "tempered:Tempered", "coarse_options": {"start": 2.0}}
# Seven pairs of two processes are four and three, of four processes two, two, two and one.
STUDENTS: Mapping[str, dict[str, Any]] = {
    "taught": {**TAUGHT, "network": {"mask_padding": True}},
    "in-chunks": {**TAUGHT, "chunk": 3, "network": {"mask_padding": True}},
    "mean": {"network": {"pooling": "mean", "temporal_layers": 0}},
    "frozen": {"trunk": "frozen", "teachers": ["xclip"]},
    "online": {"teachers": ["xclip"], "teaching": "online"},
    "xclip": {"chunk": 2, "network": {"kind": "xclip"}},  # parameters of the score, outside the encoders
    "drl": {"network": {"kind": "drl", "drl": {"cdcr": 1}}},  # a loss of all pairs that draws random numbers
    "unlabelled": {**TAUGHT, "unlabelled": 5, "network": {"mask_padding": True}},
    "unlabelled-in-chunks": {**TAUGHT, "unlabelled": 5, "chunk": 2, "network": {"mask_padding": True}},
    "unlabelled-frozen": {**TAUGHT, "unlabelled": 5, "trunk": "frozen"},
    "unlabelled-online": {**TAUGHT, "unlabelled": 5, "teaching": "online"},
    "unlabelled-few": {**TAUGHT, "unlabelled": 3, "batch_size": 2, "max_steps": 4},
    "own-loss": {"teachers": ["xclip"], "loss": TEMPERED},
    "own-loss-in-chunks": {"teachers": ["xclip"], "loss": TEMPERED, "chunk": 2},
    "sparse": {"teachers": ["some"], "loss": {"fine": 0.0}},
    "sparse-in-chunks": {"teachers": ["some"], "loss": {"fine": 0.0}, "chunk": 2},
    "few": {"batch_size": 3, "max_steps": 4, "teachers": ["xclip"]},  # one of four processes has no pair
}

MANY: Mapping[int, tuple[str, ...]] = {2: tuple(STUDENTS), 4: ("taught", "few", "unlabelled", "unlabelled-few")}


def config(world: Any, name: str, processes: int, **settings: Any) -> Config:
    given = {"run": f"runs/{name}-of-{processes}", **BASE, **STUDENTS[name], **settings}
    data = {"captions": without_some(world), "uncaptioned": "train"} if "unlabelled" in given else {}
    store = "some.zarr" if "sparse" in name else "exact.zarr"
    made: Config = world.config(train=given, score={"store": store}, data=data)
    return made


def score_some(world: Any) -> None:
    """A store of a teacher that scored seven of X-CLIP's videos of each caption, and the own one."""
    (exact,) = ScoreStore.open(world.root / "work/exact.zarr").teacher("xclip").tiles
    rows = np.arange(exact.spec.texts)
    scores = TileRows(exact).scores(rows)
    kept = np.argsort(scores, axis=1) < 7
    kept[rows, exact.text_video] = True
    store = ScoreStore.create(world.root / "work/some.zarr")
    cache = store.create_teacher("some", {"weights": "some", "sparse": 7}, 20.0, "float32", exact.spec.frames, False)
    keys = [
        list(zip(ids, map(bytes, digests), strict=True))
        for ids, digests in ((exact.text_ids, exact.text_digests), (exact.video_ids, exact.video_digests))
    ]
    tile = cache.create_tile("dense", TileContents(*keys, exact.text_video, exact.frame_times), len(rows))
    write_shard(tile, 0, np.where(kept, scores, np.float32(np.nan)), None)


def without_some(world: Any) -> Path:
    """The world's caption file without the captions of some training videos."""
    path: Path = world.root / "some.csv"
    rows = [line.split(",") for line in (world.root / "captions.csv").read_text().splitlines()]
    train = list(dict.fromkeys(video for video, _, split in rows if split == "train" and "broken" not in video))
    path.write_text("\n".join(f"{video},{'' if video in train[-6:] else text},{split}" for video, text, split in rows))
    return path


def program(*arguments: str, launcher: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


def torchrun(processes: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return program(*arguments, launcher=launcher)


def written(config: Config) -> str:
    path = config.work / f"{config.run_folder.name}.yaml"
    path.write_text(dump_config(config))
    return str(path)


@contextmanager
def in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="module")
def trained(world: Any) -> None:
    """All students by one process and by two, some of them by four."""
    score_some(world)
    with in_float64(), pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        for name in STUDENTS:
            train(config(world, name, 1))
    shutil.rmtree(config(world, "frozen", 1).class_tokens_folder)  # processes share the work of computing them again
    arguments = []
    for processes, names in MANY.items():
        arguments += ["-", str(processes), *(written(config(world, name, processes)) for name in names)]
    ended = program("train", *arguments[1:])
    assert ended.returncode == 0, ended.stderr


def lines(run: Config, kind: str) -> list[dict[str, Any]]:
    return [line for line in RunFolder(run.run_folder).metrics() if line["kind"] == kind]


def assert_alike(one: Config, other: Config, tolerance: float = ALIKE) -> None:
    """The same losses and gradients at every step, the same metrics, the same network."""
    assert len({line["loss"] for line in lines(one, "train")}) > 1
    losses, others = ([[line[key] for key in KEYS] for line in lines(run, "train")] for run in (one, other))
    np.testing.assert_allclose(losses, others, rtol=tolerance, atol=tolerance)
    measured, again = ([(line["t2v"], line["v2t"]) for line in lines(run, "val")] for run in (one, other))
    assert measured == again
    weights, others_weights = (load_file(run.run_folder / "best.safetensors") for run in (one, other))
    torch.testing.assert_close(weights, others_weights, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "processes"), [(name, many) for many, names in MANY.items() for name in names])
@pytest.mark.usefixtures("trained")
def test_the_student_is_that_of_one_process(world: Any, name: str, processes: int) -> None:
    one, many = config(world, name, 1), config(world, name, processes)
    assert_alike(one, many)
    identities = [(run.run_folder / "run.json").read_text() for run in (one, many)]
    assert identities[0] == identities[1], "either may go on with the other's run"


@pytest.mark.usefixtures("trained")
def test_chunks_are_exact(world: Any) -> None:
    assert_alike(config(world, "taught", 1), config(world, "in-chunks", 1))


@pytest.mark.parametrize(("processes", "shares"), [(2, [4, 3]), (4, [2, 2, 2, 1])])
@pytest.mark.usefixtures("trained")
def test_each_process_reads_the_labels_of_its_own_rows(world: Any, processes: int, shares: list[int]) -> None:
    run = config(world, "taught", processes)
    read = [json.loads((run.run_folder / f"rows-{rank}.json").read_text()) for rank in range(processes)]
    order = BatchSampler(28, 7, run.train.seed)
    for step, texts in order.steps(0, 4):
        assert [len(rows[step]) for rows in read] == shares
        assert [text for rows in read for text in rows[step]] == texts.tolist()


@pytest.mark.gpu
def test_gpus_train_the_student_of_one(world: Any) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two GPUs, there is {torch.cuda.device_count()}")
    on_gpu = {"device": "cuda", "precision": "float32"}
    one, many = (config(world, "taught", n, run=f"runs/{n}-gpus", **on_gpu) for n in (1, 2))
    with in_float64():
        train(one)
    ended = program("train", "2", written(many))
    assert ended.returncode == 0, ended.stderr
    assert_alike(one, many)


def test_processes_stop_together_and_one_goes_on_where_another_was_killed(world: Any) -> None:
    settings = {"epochs": 2, "checkpoint_seconds": 0.001}
    whole, broken = (config(world, "taught", 1, run=f"runs/{name}", **settings) for name in ("whole", "broken"))
    path = written(broken)
    ended = torchrun(2, "end", path)
    assert ended.returncode != 0
    command = f"torchrun --nproc-per-node=2 -m teachclip train {path}"
    assert ended.stdout == f"stopped at step 4 of 8, which is saved; go on with: {command}\n"
    assert "goes on at step 4 of 8" in ended.stderr
    assert ended.stderr.count("error: another process of this run ended") == 1
    assert "Traceback" not in ended.stderr.split("Sending process")[0], "but torchrun's own"
    assert RunFolder(broken.run_folder).states
    with in_float64():
        train(whole)
        train(broken)
    assert_alike(whole, broken)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`place(rank)` makes this process one of two, whose meeting place is in this process too."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name in [name for name in os.environ if name.startswith("TORCHELASTIC_")]:
        monkeypatch.delenv(name)
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2"}

    def take(rank: int) -> None:
        for name, value in (given | {"RANK": str(rank), "LOCAL_RANK": str(rank)}).items():
            monkeypatch.setenv(name, value)

    take.store = store  # type: ignore[attr-defined]  # lives as long as the fixture
    return take


@pytest.mark.parametrize("first", [0, 1])
def test_what_every_process_finds_wrong_is_told_once(place: Any, tmp_path: Path, first: int) -> None:
    command = ["train", str(tmp_path / "none.yaml"), "--json"]
    told = []
    for rank in (first, 1 - first):
        place(rank)
        told.append(CliRunner().invoke(app, command))
    assert [result.exit_code for result in told] == [2, 2]
    assert "none.yaml" in told[0].stderr
    assert "none.yaml" in json.loads(told[0].stdout)["error"]["what"]
    assert told[1].output == ""


def test_where_no_other_process_can_be_asked_it_is_told(
    place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(1)
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setattr(worlds, "TELLING", timedelta(seconds=0.1))
    assert "none.yaml" in CliRunner().invoke(app, ["train", str(tmp_path / "none.yaml")]).stderr


def test_more_processes_than_gpus_are_refused(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    place(1)
    with pytest.raises(ConfigError, match="no GPU for process 2 of this machine, which has 1"), joined():
        pass


def test_a_process_alone_is_a_world() -> None:
    alone = World.current()
    values = torch.arange(3.0, requires_grad=True)
    with joined() as same:
        assert (same.rank, same.ranks, same.main) == (0, 1, True)
    assert alone.gather(values, 2).tolist() == [0, 1]
    assert [alone.agree(flag) for flag in (False, True)] == [False, True]
    assert alone.broadcast({"step": 3}) == {"step": 3}
    assert [alone.rows(5), alone.some_rows(5)] == [slice(0, 5)] * 2


def test_a_process_without_a_share_works_on_the_last_row() -> None:
    assert [World(rank, 4).rows(2) for rank in range(4)] == [slice(0, 1), slice(1, 2), slice(2, 2), slice(2, 2)]
    assert World(3, 4).some_rows(2) == slice(1, 2)


def test_gathered_gradients_are_summed_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two gathered tensors are given one gradient, as a sum gives them. Both processes hold the same."""
    monkeypatch.setattr(dist, "all_gather_into_tensor", lambda whole, own: whole.copy_(torch.cat([own, own])))
    monkeypatch.setattr(dist, "all_reduce", lambda gradient: gradient.mul_(2))
    one, other = (torch.ones(1, 2, requires_grad=True) for _ in range(2))
    total = World(1, 2).gather(one, 2) + World(1, 2).gather(other, 2)
    (total * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum().backward()
    assert one.grad is not None
    assert other.grad is not None
    assert one.grad.tolist() == other.grad.tolist() == [[6.0, 8.0]]
