"""One command, any number of test sets and runs: `teachclip evaluate --on OTHER --run RUN`; and re-ranked numbers."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.configs.loading import dump_config
from teachclip.pipeline.cli.main import app
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.retrieval.query_ranks import read_query_ranks
from teachclip.stages.train.stage import train
from typer.testing import CliRunner, Result

type Ask = Callable[..., Result]


@pytest.fixture
def ask(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`ask("own.yaml", "--json")`: evaluate in a folder with `own.yaml`, the world, whose run is a copy of the
    teacher's, and `other.yaml`, the world's validation clips with one caption each as a test set."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(
        world.root / "work" / "runs" / "xclip", run, ignore=shutil.ignore_patterns("*evaluation*", "ranks*")
    )
    write(tmp_path / "own.yaml", world.config(evaluate={"run": run, "block": 5}))
    with (world.root / "captions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val" and row["caption"].startswith("a ")]
    lines = ["video,caption,split", *(f"{row['video']},{row['caption']},test" for row in rows)]
    (tmp_path / "other.csv").write_text("\n".join(lines))
    write(tmp_path / "other.yaml", world.config(data={"captions": tmp_path / "other.csv", "videos": world.root}))

    def invoke(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["teachclip", "evaluate", *arguments])
        return CliRunner().invoke(app, ["evaluate", *arguments], env={"COLUMNS": "200"})

    return invoke


def write(path: Path, config: Any) -> None:
    path.write_text(dump_config(config))


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


def test_every_test_set_is_a_row_and_a_result_in_the_run_folder(ask: Ask, tmp_path: Path) -> None:
    result = ask("own.yaml", "--on", "other.yaml")
    assert result.exit_code == 0, result.stderr
    title, headings, *rows = result.stdout.splitlines()
    assert title == f"{tmp_path / 'run'}: test: t2v is text to video, v2t is video to text"
    assert cells(headings) == ["data", "captions", "videos", "R@1", "R@5", "R@10", "SumR", "MdR", "MnR"]
    assert [cells(row)[:4] for row in rows] == [
        [name, *sizes, way] for name, sizes in (("own", ("12", "6")), ("other", ("4", "4"))) for way in ("t2v", "v2t")
    ]
    alone = json.loads(ask("own.yaml", "--json").stdout)
    assert cells(rows[0])[4:] == [f"{alone['t2v'][key]:.1f}" for key in ("r1", "r5", "r10", "sumr", "mdr", "mnr")]
    kept = sorted(path.name for path in (tmp_path / "run").glob("*test*"))
    assert kept == ["evaluation-other-test.json", "evaluation-test.json", "ranks-other-test.npz", "ranks-test.npz"]
    ranks = read_query_ranks(tmp_path / "run" / "ranks-other-test.npz")
    assert (ranks.data, len(ranks.text_ids)) == ("other", 4)
    written = json.loads((tmp_path / "run" / "evaluation-other-test.json").read_text())
    assert written["data"] == "other"
    assert asdict(ranks.metrics()["t2v"]) == written["t2v"]


def test_runs_and_sets_multiply(ask: Ask, tmp_path: Path) -> None:
    shutil.copytree("run", "second")
    document = json.loads(ask("own.yaml", "--on", "other.yaml", "--run", "run", "--run", "second", "--json").stdout)
    assert document["failed"] == []
    asked = [(Path(each["run"]).name, each["data"]) for each in document["results"]]
    assert asked == [("run", "own"), ("run", "other"), ("second", "own"), ("second", "other")]
    assert document["results"][0]["t2v"] == document["results"][2]["t2v"]
    assert (tmp_path / "second" / "ranks-other-test.npz").exists()


def test_one_run_by_its_name_is_the_plain_command(ask: Ask) -> None:
    shutil.copytree("run", "second")
    assert json.loads(ask("own.yaml", "--run", "second", "--json").stdout)["run"].endswith("second")


def test_a_set_that_cannot_be_evaluated_is_told_and_the_others_are_evaluated(
    ask: Ask, world: Any, tmp_path: Path
) -> None:
    data = {"captions": tmp_path / "other.csv", "videos": world.root}
    write(tmp_path / "missing.yaml", world.config(data=data, prepare={"frames": "nowhere"}))
    short = world.config(data=data, prepare={"frames": tmp_path / "short", "max_frames": 3})
    prepare(short)
    write(tmp_path / "short.yaml", short)
    sets = ("--on", "missing.yaml", "--on", "short.yaml", "--on", "other.yaml")
    result = ask("own.yaml", *sets)
    assert result.exit_code == 1
    assert [cells(row)[0] for row in result.stdout.splitlines()[2:]] == ["own", "own", "other", "other"]
    told = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in told if line.startswith("error")] == [
        f"{tmp_path / 'run'} on missing",
        f"{tmp_path / 'run'} on short",
    ]
    assert "  prepare.max_frames: the network takes 4, the frames have 3" in told
    wanted = "teachclip prepare short.yaml --set prepare.max_frames=4 --set prepare.image_size=32"
    assert any(wanted in line for line in told)
    document = json.loads(ask("own.yaml", *sets, "--json").stdout)
    assert [each["data"] for each in document["results"]] == ["own", "other"]
    assert [(each["data"], each["exit_code"]) for each in document["failed"]] == [("missing", 1), ("short", 1)]


def test_a_run_that_does_not_exist_does_not_keep_the_others_from_it(ask: Ask) -> None:
    result = ask("own.yaml", "--run", "run", "--run", "nothing", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [Path(each["run"]).name for each in document["results"]] == ["run"]
    assert [(Path(each["run"]).name, each["data"]) for each in document["failed"]] == [("nothing", "own")]
    alone = ask("own.yaml", "--run", "nothing")
    assert alone.exit_code == 1
    assert "nothing" in alone.stderr
    assert "Traceback" not in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--on", "absent.yaml"], "absent.yaml: no such file"),
        (["--on", "folder/own.yaml"], "own.yaml and folder/own.yaml are both called own"),
        (["--set", "evaluate.split=tset"], "evaluate.split"),
        (["--set", "evaluate.rerank=qbnorm"], "evaluate.rerank"),
        (["--set", "evaluate.rerank_temperature=0"], "evaluate.rerank_temperature"),
    ],
)
def test_mistakes_are_told_before_anything_runs(ask: Ask, tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy("own.yaml", "folder/own.yaml")
    result = ask("own.yaml", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr.splitlines()[0]
    assert not list((tmp_path / "run").glob("*test*"))


def test_a_split_without_captions_is_told(ask: Ask, tmp_path: Path) -> None:
    result = ask("other.yaml", "--run", "run", "--set", "evaluate.split=train")
    assert result.exit_code == 1
    assert "the train split has no usable captions" in result.stderr


@pytest.mark.parametrize("kind", ["dual-softmax", "query-bank"])
def test_re_ranked_numbers_are_marked_wherever_they_stand(ask: Ask, tmp_path: Path, kind: str) -> None:
    settings = ("--set", f"evaluate.rerank={kind}")
    mark = {
        "dual-softmax": "re-ranked by dual softmax at temperature",
        "query-bank": "text to video re-ranked with a bank of 29 training captions at temperature 0.05",
    }[kind]
    plain = json.loads(ask("own.yaml", "--json").stdout)
    assert plain["marks"] == []
    document = json.loads(ask("own.yaml", *settings, "--json").stdout)
    assert document["marks"][0].startswith(mark)
    assert any(line.startswith(mark) for line in ask("own.yaml", *settings, "--quiet").stdout.splitlines())
    several = ask("own.yaml", "--on", "other.yaml", *settings).stdout.splitlines()
    assert sum(mark in line for line in several) == 2
    assert read_query_ranks(tmp_path / "run" / f"ranks-test-{kind}.npz").marks == tuple(document["marks"])
    assert json.loads((tmp_path / "run" / "evaluation-test.json").read_text()) == plain, "plain numbers stay"
    if kind == "query-bank":
        assert document["v2t"] == plain["v2t"]


def test_dual_softmax_of_a_network_is_that_of_its_logits(world: Any) -> None:
    """The default temperature makes logits of raw scores, whose softmax the published code takes."""
    from teachclip.cache.frames.cache import FrameCache
    from teachclip.stages.data.dataset import read_dataset
    from teachclip.stages.data.usable_split import usable_split
    from teachclip.stages.data.video_inputs import FrameInputs
    from teachclip.stages.models.checkpoints.files import load_network
    from teachclip.stages.models.clip.tokens import tokenize
    from teachclip.stages.retrieval.encode import comparing
    from teachclip.stages.retrieval.metrics import retrieval_metrics
    from teachclip.stages.runtime.reporting import Silent

    config = world.config(evaluate={"run": "runs/xclip", "split": "train", "rerank": "dual-softmax", "block": 7})
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    network = load_network(config.evaluate_run)
    with comparing(network, FrameInputs(frames, split.videos), Silent()) as scores_of:
        scores = scores_of(tokenize(split.captions, network.config.words)[0])
        logits = scores(np.arange(len(split.texts)), slice(0, len(split.videos)))
    logits = logits * float(network.logit_scale.detach().exp())
    shares = np.exp(logits - logits.max(axis=0))
    expected = retrieval_metrics(logits * shares / shares.sum(axis=0), split.text_video, len(split.videos))["t2v"]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    of_texts = retrieval_metrics(
        logits * shares / shares.sum(axis=1, keepdims=True), split.text_video, len(split.videos)
    )["v2t"]
    found = evaluate(config)
    assert found.t2v == pytest.approx(asdict(expected))
    assert found.v2t == pytest.approx(asdict(of_texts))


def test_a_network_chosen_on_test_is_marked_in_every_evaluation(ask: Ask, world: Any, tmp_path: Path) -> None:
    rows = (world.root / "captions.csv").read_text().splitlines()
    (tmp_path / "no-val.csv").write_text("\n".join(row for row in rows if not row.endswith(",val")))
    data = {"captions": tmp_path / "no-val.csv", "videos": world.root, "validation": "test"}
    run = tmp_path / "on-test"
    config = world.config(data=data, train={"run": run, "epochs": 1}, evaluate={"run": run})
    train(config)
    write(tmp_path / "own.yaml", config)
    document = json.loads(ask("own.yaml", "--json").stdout)
    (mark,) = document["marks"]
    assert mark.startswith("the network was chosen by sumr (text to video) on the test split, as published")
    assert document["chosen_by"] in mark
    assert mark in ask("own.yaml", "--quiet").stdout.splitlines()
    assert ask("own.yaml", "--on", "other.yaml").stdout.count(mark) == 2
    assert read_query_ranks(run / "ranks-test.npz").marks == (mark,)
