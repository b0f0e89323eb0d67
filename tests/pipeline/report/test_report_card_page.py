"""`teachclip cache report`: the terminal, the JSON document, and the page as a reader's browser gets it."""

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.cache.scores.shard import write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.cache.scores.tile import TileContents
from teachclip.cache.storage.identity import digest, text_digest
from teachclip.configs.loading import load_config, shipped
from teachclip.pipeline.cli.main import app
from teachclip.pipeline.report.page.teacher_card import weights_options
from teachclip.pipeline.report.page.teacher_worth import told
from teachclip.stages.analysis.teacher_worth import Alone, TeachersWorth, TeacherWorth
from teachclip.stages.analysis.teaching_curve import nearest
from teachclip.stages.retrieval.confidence import Interval
from teachclip.stages.retrieval.metrics import Metrics
from typer.testing import CliRunner, Result

HOSTILE = "<script>alert('x')</script> \"a\" & b"
TEXTS, VIDEOS = 12, 6

type Invoke = Callable[..., Result]


class Page(HTMLParser):
    """Elements, attributes and text; fails where elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.loaded += [value or "" for key, value in attrs if key in {"src", "href", "srcset", "action"}]
        if tag not in {"br", "img", "link", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if "style" in self.open else data


def caption(number: int) -> str:
    return f"caption {number} {HOSTILE if number == 7 else ''}".strip()


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """Runs verbs in a folder with work/scores.zarr, of teachers `a` and `2.5`, and the captions it was scored with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEACHCLIP_DEBUG", raising=False)
    Path("work").mkdir()
    store = ScoreStore.create(Path("work/scores.zarr"))
    rng = np.random.default_rng(0)
    own = np.arange(TEXTS) % VIDEOS
    for name in ("a", "2.5"):
        cache = store.create_teacher(name, {"weights": name}, 20.0, "uint16", 3, True)
        texts = [(f"v{own[i]}&.mp4#{i // VIDEOS}", text_digest(caption(i))) for i in range(TEXTS)]
        videos = [(f"v{j}&.mp4", digest(f"{j}".encode())) for j in range(VIDEOS)]
        tile = cache.create_tile("dense", TileContents(texts, videos, own, np.tile(np.arange(3.0), (VIDEOS, 1))), 99)
        scores = rng.normal(0, 0.1, (TEXTS, VIDEOS)).astype(np.float32)
        scores[np.arange(TEXTS), own] += np.where(np.arange(TEXTS) == 7, -5, 1)
        write_shard(tile, 0, scores, rng.normal(0, 1, (TEXTS, 3)).astype(np.float32))
    rows = [f'v{own[i]}&.mp4,"{caption(i).replace(chr(34), chr(34) * 2)}",train' for i in range(TEXTS)]
    Path("captions.csv").write_text("\n".join(["video,caption,split", *rows]))
    Path("own_videos.yaml").write_text(shipped()["own_videos"].read_text())

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["teachclip", *arguments])
        return CliRunner().invoke(app, ["cache", "report", *arguments])

    return run


def test_the_examples_of_the_help_run(invoke: Invoke) -> None:
    commands = re.findall(r"(?m)^ {4}teachclip cache report (.*)$", invoke("--help").stdout)
    assert len(commands) == 2
    for command in commands:
        result = invoke(*shlex.split(command))
        assert (result.exit_code, result.stderr) == (0, "")
    assert Path("teachers.html").exists()


def test_the_terminal_shows_ranks_agreement_doubt_and_weights(invoke: Invoke) -> None:
    lines = invoke("work/scores.zarr", "--captions", "own_videos.yaml").stdout.splitlines()
    assert lines[0].startswith("work/scores.zarr: 12 captions, 6 videos; ")
    rows = [line.split() for line in lines]
    assert rows[2][:8] == ["2.5", "12", "91.7", "91.7", "100.0", "283.3", "1.0", "1.4"]
    assert any(row[:3] == ["2.5,", "a", "12"] for row in rows)
    (doubt,) = [line for line in lines if line.startswith("v1&.mp4#1")]
    assert "6, 6" in doubt
    assert "caption 7" in doubt
    assert "<script>" in "".join(lines[lines.index(doubt) :])  # wrapped, as it is
    (options,) = [line for line in lines if line.startswith("suggested weights: ")]
    words = shlex.split(options.removeprefix("suggested weights: "))
    settings = load_config(Path("own_videos.yaml"), words[1::2])
    assert settings.train.teachers == ("2.5", "a")
    assert settings.train.loss.teachers == "weighted"
    assert sum(settings.train.loss.teacher_weights.values()) == pytest.approx(1)


def test_json_has_everything(invoke: Invoke) -> None:
    result = invoke("work/scores.zarr", "--captions", "own_videos.yaml", "--json")
    card = json.loads(result.stdout)
    assert [each["teacher"] for each in card["teachers"]] == ["2.5", "a"]
    assert card["teachers"][0]["t2v"]["queries"] == TEXTS
    assert card["doubtful"][0]["caption"] == caption(7)
    assert set(card["weights"]) == {"a", "2.5"}
    assert json.loads(invoke("work/scores.zarr", "--json").stdout)["doubtful"][0]["caption"] is None


def test_the_page_shows_all_of_it_as_text_and_loads_nothing(invoke: Invoke) -> None:
    assert invoke("work/scores.zarr", "--captions", "own_videos.yaml", "--out", "card.html").exit_code == 0
    page = Page(Path("card.html").read_text(encoding="utf-8"))
    assert "script" not in page.elements
    assert all(value.startswith(("#", "data:")) for value in page.loaded)
    for expected in (
        "Text to video", "Video to text", "283.3", "2.5 and a", "Normalised entropy of y_f", "teachclip's own",
        "train.loss.teachers=weighted", f"“{caption(7)}”", "v1&.mp4", "rank 6 of 6",
    ):  # fmt: skip
        assert expected in page.text, expected


def test_a_table_too_wide_for_a_phone_scrolls_by_itself_and_shows_that_it_does(invoke: Invoke, browser: Any) -> None:
    assert invoke("work/scores.zarr", "--out", "card.html").exit_code == 0
    tab = browser.open(Path("card.html"), 360)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    tab.evaluate("wide = [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 9); 0")
    assert tab.evaluate("wide.some(e => e.textContent.includes('mean entropy'))")
    edges = tab.evaluate("wide.map(e => getComputedStyle(e).backgroundAttachment)")
    assert {edge[: len("local, local, scroll, scroll")] for edge in edges} == {"local, local, scroll, scroll"}
    name = "wide[0].querySelector('tbody th').getBoundingClientRect().left"
    before = tab.evaluate(name)
    assert tab.evaluate("(wide[0].scrollLeft = 20, wide[0].scrollLeft)") == 20
    assert tab.evaluate(name) == before


def test_whether_the_teachers_are_any_good_is_told_with_the_captions(invoke: Invoke) -> None:
    assert "Own captions" not in invoke("work/scores.zarr").stdout
    assert json.loads(invoke("work/scores.zarr", "--json").stdout)["worth"] is None
    result = invoke("work/scores.zarr", "--captions", "own_videos.yaml", "--out", "card.html", *NO_VAL)
    words = " ".join(result.stdout.split())
    assert "Own captions that teach: 12, of 6 videos." in words
    assert "a ranks the 12 captions that it scored among 6 videos with SumR 283.3. These are to train on" in words
    assert "with score.splits [train, val] held-out ones are scored, too" in words
    page = Page(Path("card.html").read_text(encoding="utf-8")).text
    for text in (
        "Is the teacher any good?",
        "Own captions that teach: 12",
        "There is no student alone",
        "12 (training)",
    ):
        assert text in page


def test_held_out_captions_are_told_from_those_to_train_on(invoke: Invoke) -> None:
    rows = Path("captions.csv").read_text().splitlines()
    held = [row.replace(",train", ",val") if row.startswith(("v3", "v4", "v5")) else row for row in rows]
    Path("captions.csv").write_text("\n".join(held))
    found = json.loads(invoke("work/scores.zarr", "--captions", "own_videos.yaml", "--json").stdout)["worth"]
    assert (found["texts"], found["videos"]) == (6, 3)
    one = found["teachers"][1]
    assert (one["teacher"], one["split"], one["texts"], one["videos"], one["verdict"]) == ("a", "val", 6, 3, "unknown")
    assert one["interval"]["low"] <= one["t2v"]["sumr"] <= one["interval"]["high"]
    assert "rendered clips" in found["evidence"]
    words = " ".join(invoke("work/scores.zarr", "--captions", "own_videos.yaml").stdout.split())
    assert "a ranks 6 validation captions among 3 videos, held out from training, with SumR 300.0" in words


NO_VAL = ("--set", "data.val_fraction=0")
VERDICTS = {
    "better": "the teacher is better by +20.0 (+10.0 to +30.0), and has something to teach.",
    "hardly better": "the teacher is hardly better, +2.0 (−3.0 to +7.0), no more than chance may give. Expect little",
    "worse": "the teacher is worse, −20.0 (−30.0 to −10.0). Do not expect it to teach anything.",
}


@pytest.mark.parametrize("verdict", list(VERDICTS))
def test_every_verdict_is_told_in_plain_words(verdict: Any) -> None:
    less = {"better": (20, 10, 30), "hardly better": (2, -3, 7), "worse": (-20, -30, -10)}[verdict]
    metrics = Metrics(10, 20, 30, 40, 60 + less[0], 3, 9, 80)
    expected = nearest(400, 400, equal=verdict != "better")
    one = TeacherWorth(
        "tutor", "val", 80, 40, metrics, metrics, Interval(metrics.sumr, 50, 70), Alone("runs/alone", 60.0),
        Interval(*map(float, less)), verdict, expected,
    )  # fmt: skip
    first, second, third = told(TeachersWorth(400, 400, (one,)))
    assert first == "Own captions that teach: 400, of 400 videos."
    assert f"The student alone, runs/alone, has 60.0: {VERDICTS[verdict]}" in second
    if verdict == "better":
        assert "+14.0 (+6.2 to +18.2) SumR to 400 clips with 1 caption each, whose teacher knew more" in third
        assert "8 draws, measured on rendered clips" in third
    else:
        assert (
            "−0.1 (−6.5 to +7.6) SumR to 400 clips with 1 caption each, whose teacher had learnt from the same clips"
            in third
        )
    (far,) = [line for line in told(TeachersWorth(9, 9, (replace(one, expected=None),))) if "No size" in line]
    assert far.endswith("try it, beside the student alone.")


def test_one_teacher_has_nobody_to_agree_with(invoke: Invoke) -> None:
    import shutil

    shutil.rmtree("work/scores.zarr/2.5")
    result = invoke("work/scores.zarr", "--out", "card.html")
    assert result.exit_code == 0
    assert "agreement" not in result.stdout
    assert "weights" not in result.stdout
    text = Page(Path("card.html").read_text(encoding="utf-8")).text
    assert "Agreement" not in text
    assert "Suggested weights" not in text


def test_captions_that_changed_are_counted(invoke: Invoke) -> None:
    captions = Path("captions.csv")
    captions.write_text(captions.read_text().replace("caption 7 <", "caption seven <"))
    result = invoke("work/scores.zarr", "--captions", "own_videos.yaml")
    assert "1 caption has changed since they were scored" in result.stdout
    assert "caption seven" not in result.stdout


def test_a_store_that_is_none_is_one_message(invoke: Invoke) -> None:
    result = invoke("work/nothing.zarr")
    assert result.exit_code == 2
    assert "there is no work/nothing.zarr; did you mean work/scores.zarr?" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["x", "ts2net-v2", "12", "1.5", "true", "null", "2020-01-01", "no"])
def test_what_is_to_be_copied_is_read_as_it_was_meant(invoke: Invoke, name: str) -> None:
    words = shlex.split(weights_options({name: 0.25, "other": 0.75}))
    loss = load_config(Path("own_videos.yaml"), words[1::2]).train.loss
    assert loss.teacher_weights == {name: 0.25, "other": 0.75}
