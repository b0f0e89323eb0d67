"""`teachclip report`: any number of run folders on one page, whole or not."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from teachclip.pipeline.cli.main import app
from teachclip.pipeline.report.collect.facts import facts
from teachclip.pipeline.report.collect.run import read_runs, short_names, teachers_among
from teachclip.stages.data.dataset import Text
from teachclip.stages.labels.caption_mask import captions_digest
from teachclip.stages.retrieval.confidence import confidence, difference
from teachclip.stages.retrieval.query_ranks import QueryRanks, read_query_ranks, save_query_ranks
from typer.testing import CliRunner, Result

from .written_runs import (
    EACH,
    HOSTILE,
    MEAN,
    TEXTS,
    VIDEOS,
    caption,
    config,
    plain,
    query_ranks,
    video,
    write_frames,
    write_run,
    write_scores,
)

type Parse = Callable[[str], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs alone, MEAN, taught, and tutor, the teacher's own; the frames they saw, the scores that taught. All of it is
    moved afterwards."""
    top = tmp_path_factory.mktemp("report")
    work = top / "made" / "work"
    write_run(config(work, "alone"), 1, 1.0)
    write_run(config(work, MEAN, network={"pooling": "mean"}), 2, 1.5)
    write_run(config(work, "taught", teachers=["tutor"], loss={"fine": 0}), 3, 2.0, "test")
    write_run(config(work, "tutor", network={"kind": "xclip"}), 4, 1.7)
    write_frames(work / "frames")
    write_scores(work / "scores.zarr")
    rows = [f'"{video(k // EACH)}","{caption(k).replace(chr(34), chr(34) * 2)}",test' for k in range(len(TEXTS))]
    (top / "captions.csv").write_text("\n".join(["video,caption,split", *rows]))
    work.parent.rename(top / "moved")
    return top / "moved"


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `work`, in the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEACHCLIP_DEBUG", raising=False)
    return Path("work")


type Report = Callable[..., Result]


@pytest.fixture
def report(work: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """`report("alone", "taught", "--split", "val")`."""

    def run(*arguments: str) -> Result:
        words = [f"work/runs/{each}" if (work / "runs" / each).exists() else each for each in arguments]
        monkeypatch.setattr("sys.argv", ["teachclip", "report", *words])
        return CliRunner().invoke(app, ["report", *words], env={"COLUMNS": "120", "TERMINAL_WIDTH": "120"})

    return run


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of all four runs."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    runs = [str(made / "work/runs" / name) for name in ("alone", MEAN, "taught", "tutor")]
    result = CliRunner().invoke(app, ["report", *runs, "--out", str(out), "--title", f"Title {HOSTILE}"])
    assert (result.exit_code, result.stderr) == (0, "")
    return out


@pytest.fixture(scope="module")
def page(whole: Path, parse: Parse) -> Any:
    return parse(whole.read_text(encoding="utf-8"))


def test_metrics_intervals_and_paired_differences_are_those_of_the_ranks(page: Any, made: Path) -> None:
    ranks = {name: read_query_ranks(made / f"work/runs/{name}/ranks-test.npz") for name in ("alone", "taught")}
    t2v = ranks["taught"].metrics()["t2v"]
    values = [f"{value:.1f}" for value in (t2v.r1, t2v.r5, t2v.r10, t2v.sumr)]
    assert ["taught", *values, f"{t2v.mdr:g}", f"{t2v.mnr:.1f}"] in page.rows
    sumr = confidence(ranks["taught"])["t2v"]["sumr"]
    shown = ["".join(row) for row in page.rows]
    assert any(row.startswith("95 %") and f"{sumr.low:.1f}–{sumr.high:.1f}" in row for row in shown)
    less = difference(ranks["taught"], ranks["alone"])["t2v"]["sumr"]
    cell = f"+{less.value:.1f}+{less.low:.1f} to +{less.high:.1f}"
    assert any(row.startswith("taught") and cell in row for row in shown)
    assert "clear gain" in page.text
    assert "Difference in SumR from alone" in page.text


def test_no_text_becomes_markup(page: Any) -> None:
    assert not {"script", "b8", "iframe"} & set(page.elements)
    assert page.text.count("<script>alert('x')</script>") >= 6  # title twice, caption, four command lines
    assert page.elements.count("b") < page.text.count("<b>") + 200
    assert f"“{caption(7)}”" in page.text or HOSTILE in page.text


def test_nothing_is_loaded_from_anywhere_and_nothing_runs(page: Any, whole: Path) -> None:
    loaded = [value for _, key, value in page.attributes if key in {"src", "href", "srcset", "data", "action"}]
    assert all(value.startswith(("data:", "#")) for value in loaded)
    assert not [key for _, key, _ in page.attributes if key.startswith("on")]
    assert "url(http" not in whole.read_text(encoding="utf-8")


def test_headings_go_down_one_at_a_time_and_pictures_are_named(page: Any) -> None:
    levels = [int(element[1]) for element in page.elements if re.fullmatch("h[1-6]", element)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    images = [value for element, key, value in page.attributes if element == "img" and key == "alt"]
    assert len(images) == page.elements.count("img") > 30
    assert all(images)
    assert page.elements.count("svg") == page.elements.count("desc")
    scopes = [value for element, key, value in page.attributes if element == "th" and key == "scope"]
    assert len(scopes) == page.elements.count("th")


def test_queries_show_frames_weights_ranks_and_what_was_found(page: Any, made: Path) -> None:
    ranks = query_ranks(3, 2.0).texts.expected
    worst = int(np.argsort(-ranks, kind="stable")[0])
    place = page.texts.index("ranked worst by taught")
    assert page.texts[place + 1] == f"“{caption(worst)}”"
    assert page.texts[place + 2] == video(worst // EACH)
    assert f"{ranks[worst]:,g}" in page.texts[place : place + 20]
    titles = [value for element, key, value in page.attributes if element == "span" and key == "title"]
    assert any(title.startswith("alone: 0.") for title in titles)
    assert any(title.startswith("tutor: 0.") for title in titles)
    assert not any(title.startswith(MEAN) for title in titles)  # mean pooling weighs nothing
    assert "Found first" in page.text


def test_curves_card_cost_and_provenance_are_there(page: Any) -> None:
    for expected in (
        "SumR on the validation split, text to video", "Coarse loss of the training batches", "Learning rate: rest",
        "Waiting for data, % of the time", "Rank of a query's own video, % of queries", "Retrieval", "FLOPs per pair",
        "Settings that differ", "train.network.pooling", "250 videos with 500 captions", "teachclip 0.9, torch 2.11",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert "Fine loss of the training batches" in page.text
    assert ["train frames", *["efefefefefef"] * 2, "cdcdcdcdcdcd", "efefefefefef"] in page.rows
    assert ["train captions", *["abababababab"] * 4] in page.rows
    assert ["128 B", "128"] in [row[1:3] for row in page.rows]  # a student keeps 64 numbers of 2 bytes


def test_videos_without_captions_are_among_the_facts(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "work/runs/taught", tmp_path / "taught")
    (run,) = read_runs([tmp_path / "taught"])
    assert facts(run)["batch"] == "16 pairs"
    assert run.config is not None
    train = run.config.train.model_copy(update={"unlabelled": 128})
    more = replace(run, config=run.config.model_copy(update={"train": train}))
    assert facts(more)["batch"] == "16 pairs and 128 videos without captions"


def test_a_network_chosen_on_test_data_is_marked_where_its_numbers_are(page: Any) -> None:
    mark = "the network was chosen by sumr (text to video) on the test split"
    assert f"taught: {mark}." in page.text[: page.text.index("R@1")]
    assert page.text.count(mark) == 2  # there, and on the run's card


def test_the_terminal_and_json_say_what_the_page_says(report: Report) -> None:
    result = report("alone", "taught", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [run["name"] for run in found["runs"]] == ["alone", "taught"]
    assert found["bytes"] == Path("report.html").stat().st_size
    assert found["evaluation"] == "test"
    gain = found["differences"][0]
    assert (gain["model"], gain["against"]) == ("taught", "alone")
    assert gain["differences"]["t2v"]["sumr"]["low"] > 0
    shown = report("alone", "taught", "--out", "b.html").stdout
    assert f"taught less alone: SumR +{gain['differences']['t2v']['sumr']['value']:.1f} (" in shown
    assert "b.html" in shown.splitlines()[-1]


@pytest.fixture
def held_out(work: Path) -> Path:
    """`work`, and beside what was evaluated 6 videos with 12 captions that alone and taught were trained on."""
    shutil.rmtree(work / "scores.zarr")
    write_scores(work / "scores.zarr", more=6)
    numbers = range((VIDEOS + 6) * EACH)
    rows = [(video(k // EACH), caption(k), "test" if k < len(TEXTS) else "train") for k in numbers]
    with Path("all.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("video", "caption", "split"), *rows])
    trained = [
        Text(f"{name}#{k % EACH}", name, words) for k, (name, words, split) in enumerate(rows) if split == "train"
    ]
    for name in ("alone", "taught"):
        folder = work / "runs" / name
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        settings["data"] |= {"captions": str(Path("all.csv").absolute()), "val_fraction": 0.0}
        settings["work"] = str(work.absolute())
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        made = {"train.network.kind": "student", "train.teachers": settings["train"]["teachers"]}
        (folder / "run.json").write_text(json.dumps(made | {"data.train captions": captions_digest(trained)}))
    return work


def test_whether_the_teacher_is_any_good_is_told_beside_the_student_alone(
    report: Report, held_out: Path, parse: Parse
) -> None:
    result = report("alone", "taught", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    worth = found["teachers"]
    assert (worth["texts"], worth["videos"]) == (12, 6)
    (one,) = worth["teachers"]
    assert (one["teacher"], one["split"], one["texts"], one["videos"]) == ("tutor", "test", len(TEXTS), VIDEOS)
    (alone,) = [run for run in found["runs"] if run["name"] == "alone"]
    assert one["alone"]["run"].endswith("work/runs/alone")
    assert one["alone"]["sumr"] == pytest.approx(alone["t2v"]["sumr"])
    assert one["difference"]["value"] == pytest.approx(one["t2v"]["sumr"] - alone["t2v"]["sumr"])
    assert one["verdict"] == "worse"  # its scores are noise
    sentence = "tutor ranks 60 test captions among 30 videos, held out from training, with SumR"
    assert sentence in " ".join(report("alone", "taught").stdout.split())
    page = parse(Path("report.html").read_text())
    for text in ("Is the teacher any good?", sentence, "the teacher is worse", "What teaching brought elsewhere"):
        assert text in page.text
    assert ["1,000 x 5", "99.1", "119.3", "+1.8", "6"] in [row[:5] for row in page.rows]


@pytest.mark.parametrize("dark", [False, True])
def test_what_is_said_of_the_teacher_can_be_read(browser: Any, report: Report, held_out: Path, dark: bool) -> None:
    assert report("alone", "taught").exit_code == 0
    tab = browser.open(Path("report.html"), 360, dark=dark)
    assert tab.complaints == []
    tab.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate(CONTRAST) == []


def test_the_examples_of_the_help_run(report: Report, work: Path) -> None:
    shutil.copytree(work / "runs/taught", work / "runs/student")
    for name in ("alone", "student"):
        for kind in ("evaluation-{}.json", "ranks-{}.npz"):
            shutil.copy(work / "runs" / name / kind.format("test"), work / "runs" / name / kind.format("val"))
    commands = re.findall(r"(?m)^ {4}teachclip report (.*)$", report("--help").stdout)
    assert len(commands) == 3
    for command in commands:
        result = report(*shlex.split(command))
        assert (result.exit_code, result.stderr) == (0, ""), command
    assert Path("comparison.html").exists()


def test_an_unfinished_run_shows_its_curves_so_far(report: Report, work: Path, parse: Parse) -> None:
    folder = work / "runs/alone"
    for name in ("result.json", "best.safetensors", "evaluation-test.json", "ranks-test.npz"):
        (folder / name).unlink()
    log = folder / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:30]) + '{"kind": "train", "st')
    result = report("alone", "taught")
    assert result.exit_code == 0
    assert result.stderr == ""
    page = parse(Path("report.html").read_text())
    assert "alone: not finished: at step 29." in page.text
    assert "Not evaluated on test: alone." in page.text
    legends = [page.texts[k + 1] for k, text in enumerate(page.texts) if text == "InfoNCE of the training batches"]
    assert legends == ["alone"]
    for name in ("result.json", "evaluation-test.json", "ranks-test.npz"):
        (work / "runs/taught" / name).unlink()
    assert report("alone", "taught").exit_code == 0
    assert "Not evaluated yet (2 of 2 not finished)" in parse(Path("report.html").read_text()).text


@pytest.mark.parametrize(
    ("name", "bytes_", "told"),
    [
        ("metrics.jsonl", b'\xff\xfe{"kind"\n[1]\n{"kind": "train", "step": "x", "loss": NaN}\n', "2 of the 3 lines"),
        ("evaluation-test.json", b"{", "evaluation-test.json is damaged"),
        ("evaluation-test.json", b'{"t2v": {"sumr": "high"}, "v2t": 3}', None),
        ("evaluation-test.json", b'{"t2v": {"sumr": 3}, "ties": {"a": []}, "marks": 3, "confidence": [1]}', None),
        ("ranks-test.npz", b"PK\x03\x04", "this file of ranks is damaged"),
        ("result.json", b"[]", "result.json holds something else"),
        ("result.json", b'{"best": [], "steps": "many", "other_pixels": 3, "seconds": null}', None),
        ("run.json", b"\x00", "run.json is damaged"),
        ("environment.json", b'{"a": 1}', None),
        ("config.yaml", b"train: {networks: {}}", "config.yaml cannot be used"),
        ("best.safetensors", b"nothing", "Frame weights of alone"),
    ],
)
def test_a_damaged_run_is_named_and_the_others_shown(
    report: Report, work: Path, parse: Parse, name: str, bytes_: bytes, told: str | None
) -> None:
    (work / "runs/alone" / name).write_bytes(bytes_)
    result = report("alone", "taught")
    assert result.exit_code == 0, result.stderr
    page = parse(Path("report.html").read_text())
    assert any(row[0] == "taught" and len(row) == 7 for row in page.rows)
    assert told is None or told in page.text


def test_without_frames_queries_are_text_and_the_page_says_why(report: Report, work: Path, parse: Parse) -> None:
    shutil.rmtree(work / "frames")
    assert report("alone", "taught").exit_code == 0
    page = parse(Path("report.html").read_text())
    assert "img" not in page.elements
    assert "ranked worst by taught" in page.text
    told = page.text[page.text.index("What is not on this page") :]
    assert "no frame cache here" in told


def test_without_scores_there_is_no_teacher_and_the_page_says_why(report: Report, work: Path, parse: Parse) -> None:
    shutil.rmtree(work / "scores.zarr")
    assert report("taught").exit_code == 0
    page = parse(Path("report.html").read_text())
    assert "The teachers' report card" in page.text
    titles = [value for _, key, value in page.attributes if key == "title"]
    assert any(title.startswith("tutor: 0.") for title in titles)  # the teacher itself is asked
    shutil.rmtree(work / "runs/tutor")
    assert report("taught").exit_code == 0
    assert "Frame weights of tutor" in parse(Path("report.html").read_text()).text


def test_runs_that_were_asked_other_queries_are_not_compared(report: Report, work: Path, parse: Parse) -> None:
    ranks = read_query_ranks(work / "runs/alone/ranks-test.npz")
    renamed = QueryRanks(**{**vars(ranks), "captions": tuple(f"other {each}" for each in ranks.captions)})
    save_query_ranks(work / "runs/alone/ranks-test.npz", renamed)
    assert report("alone", "taught").exit_code == 0
    text = parse(Path("report.html").read_text()).text
    assert "Difference in SumR" not in text
    assert "were not asked the same" in text


def test_one_evaluation_of_several_is_compared(report: Report, work: Path, parse: Parse) -> None:
    ranks = query_ranks(9, 3.0)
    for name in ("alone", "taught"):
        (work / f"runs/{name}/evaluation-other-test.json").write_text(json.dumps(plain(ranks)))
    assert "Text to video, other-test:" in report("alone", "taught", "--split", "other-test").stdout
    page = parse(Path("report.html").read_text())
    assert [row[0] for row in page.rows].count("other-test") == 1
    refused = report("alone", "--split", "val")
    assert refused.exit_code == 1
    assert "none of these runs was evaluated on 'val'; there is other-test, test" in refused.stderr


@pytest.mark.parametrize(
    ("path", "hint"), [("work/runs/tought", "did you mean work/runs/taught?"), ("work", "such as work/runs/alone")]
)
def test_what_is_no_run_is_one_message(report: Report, path: str, hint: str) -> None:
    result = report(path)
    assert result.exit_code == 1
    assert hint in result.stderr
    assert "Traceback" not in result.output
    assert not Path("report.html").exists()


def test_a_teacher_is_known_by_its_own_run_whatever_the_page_calls_it(work: Path) -> None:
    taught, tutor = read_runs([work / "runs/taught", work / "runs/tutor"])
    assert teachers_among([taught, replace(tutor, name="a teacher")]) == {"tutor": "a teacher"}
    assert teachers_among([taught]) == {}


def test_names_are_as_short_as_tells_them_apart() -> None:
    paths = [Path("/a/runs/x"), Path("/b/runs/x"), Path("/b/runs/y")]
    assert short_names(paths) == ["a/runs/x", "b/runs/x", "y"]
    assert short_names([Path("/a/runs/x")]) == ["x"]


def test_twenty_five_runs_stay_apart_and_the_page_small(report: Report, work: Path, parse: Parse) -> None:
    for number in range(21):
        shutil.copytree(work / "runs/alone", work / f"runs/copy{number:02d}")
    names = sorted(path.name for path in (work / "runs").iterdir())
    assert report(*names).exit_code == 0
    assert Path("report.html").stat().st_size < 5_000_000
    page = parse(Path("report.html").read_text())
    dots = {value for element, key, value in page.attributes if element == "i" and key == "class" and "dot" in value}
    assert len(dots) == 24  # eight colours in three styles
    assert "Frame weights of 19 runs: a page shows those of 6." in page.text
    bars = [value for element, key, value in page.attributes if element == "span" and key == "title"]
    assert len({title.split(":")[0] for title in bars if re.search(r": 0\.\d+$", title)}) == 6


@pytest.mark.parametrize(("width", "dark"), [(360, False), (360, True), (768, False), (1280, True)])
def test_a_browser_shows_it_without_complaint_or_overflow(browser: Any, whole: Path, width: int, dark: bool) -> None:
    tab = browser.open(whole, width, dark=dark)
    assert tab.complaints == []
    assert tab.requests == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.querySelectorAll('img').length") > 30
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert len(tab.screenshot()) > 50_000


CONTRAST = r"""
(() => {
  const parts = (colour) => (colour.match(/[\d.]+/g) || []).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const found = parts(getComputedStyle(element).backgroundColor);
      if (found.length === 3 || found[3] > 0.9) return found;
    }
    return [255, 255, 255];
  };
  const bad = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || element.closest('svg')) continue;
    const [more, less] = [light(parts(getComputedStyle(element).color)), light(ground(element))].sort((x, y) => y - x);
    const ratio = (more + 0.05) / (less + 0.05);
    if (ratio < 4.5) bad.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
  }
  return [...bad];
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser: Any, whole: Path, dark: bool) -> None:
    assert browser.open(whole, 1280, dark=dark).evaluate(CONTRAST) == []


def test_it_prints(browser: Any, whole: Path) -> None:
    tab = browser.open(whole, 1280, dark=True)
    pdf = tab.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 2 < pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/") < 40
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.call("Emulation.setDeviceMetricsOverride", width=718, height=1000, deviceScaleFactor=1, mobile=False)  # A4
    assert tab.evaluate("document.documentElement.scrollWidth") <= 718
    boxes = "[...document.querySelectorAll('.scroll, pre')]"
    assert tab.evaluate(f"{boxes}.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)") == []
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
