"""The demo at a tiny size: the whole chain, stopped and given again."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from teachclip.configs.loading import load_config
from teachclip.errors import TeachclipError
from teachclip.pipeline.demo import chain
from teachclip.pipeline.demo.chain import DemoResult, run_demo
from teachclip.remedies import MakeDemo
from teachclip.stages.retrieval.query_ranks import read_query_ranks
from teachclip.stages.search.stage import search

STEPS = 9

type Overrides = tuple[str, ...]


class Lines:
    """A reporter that remembers lines, and stops the demo at the `stop`-th thing it is told."""

    def __init__(self, stop: int | None = None) -> None:
        self.lines: list[str] = []
        self.events = 0
        self.stop = stop

    def _event(self) -> None:
        self.events += 1
        if self.events == self.stop:
            raise KeyboardInterrupt

    def info(self, message: str) -> None:
        self.lines.append(message)
        self._event()

    def warn(self, message: str) -> None:
        self.info(message)

    def progress(self, title: str, total: int | None, unit: str, done: int = 0) -> "Lines":
        self._event()
        return self

    def advance(self, n: int = 1, **fields: float | str) -> None:
        self._event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def numbers(result: DemoResult) -> dict[str, tuple[object, object]]:
    return {model.name: (model.t2v, model.v2t) for model in result.models}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny: Overrides) -> tuple[Path, DemoResult, Lines]:
    folder, lines = tmp_path_factory.mktemp("demo") / "my demo", Lines()
    return folder, run_demo(folder, lines, tiny), lines


def test_every_step_is_announced_and_timed(finished: tuple[Path, DemoResult, Lines]) -> None:
    _, result, lines = finished
    headings = [line for line in lines.lines if line[0].isdigit()]
    assert [heading.split()[0] for heading in headings] == [f"{k}/{STEPS}" for k in range(1, STEPS + 1)]
    assert sum("done in" in line for line in lines.lines) == STEPS
    assert not any(step.found for step in result.steps)


def test_result_compares_teacher_and_students_and_is_plain_data(finished: tuple[Path, DemoResult, Lines]) -> None:
    folder, result, _ = finished
    assert [Path(model.run).name for model in result.models] == [
        "xclip",
        "mean",
        "alone-50",
        "taught",
        "wide",
        "reference",
    ]
    for model in result.models:
        assert model.t2v["queries"] == 40
        assert model.v2t["queries"] == 8
        assert model.t2v["sumr"] == pytest.approx(model.t2v["r1"] + model.t2v["r5"] + model.t2v["r10"])
    assert len(result.searches.queries) == 3
    assert json.loads(json.dumps(asdict(result)))["report"] == str(folder / "report.html")


@pytest.mark.parametrize("number", [0, 3])
def test_frame_weights_of_the_page_add_up_and_its_ranks_are_those_of_evaluation(
    finished: tuple[Path, DemoResult, Lines], number: int
) -> None:
    folder, result, _ = finished
    model = result.models[number]
    ranks = read_query_ranks(Path(model.run) / "ranks-test.npz")
    assert ranks.texts.expected.mean() == pytest.approx(model.t2v["mnr"])
    assert np.median(ranks.texts.expected) == pytest.approx(model.t2v["mdr"])
    page = (folder / "report.html").read_text(encoding="utf-8")
    weights = [float(found) for found in re.findall(f'title="{model.name}: ([0-9.]+)"', page)]
    clips = page.count('class="kicker"')
    assert len(weights) >= clips >= 5
    assert sum(weights) == pytest.approx(clips, abs=0.0006 * len(weights))
    worst = max(range(len(ranks.captions)), key=lambda text: ranks.texts.expected[text])
    assert number != 3 or f"{model.name}: rank <b>{ranks.texts.expected[worst]:,g}</b>" in page


def test_page_shows_the_numbers_of_the_result(finished: tuple[Path, DemoResult, Lines]) -> None:
    folder, result, _ = finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    dots = [re.search(rf'<i class="dot (\w+)"></i>{name}</th>', page) for name in ("X-CLIP teacher", "xclip")]
    assert [dot and dot[1] for dot in dots] == ["c0", "c0"]  # in the teachers' card the same network has another name
    for model in result.models:
        cells = "".join(f"<td>{model.t2v[key]:.1f}</td>" for key in ("r1", "r5", "r10", "sumr"))
        assert cells in page
    for found in result.searches.queries:
        assert found.query in page
        assert found.answers[0].video in page
    assert page.count("data:image/jpeg") >= 5 * 12  # example clips, each frame


def test_the_page_says_what_was_gained_both_ways_and_plays_what_was_found(
    finished: tuple[Path, DemoResult, Lines],
) -> None:
    folder, result, _ = finished
    page = (folder / "report.html").read_text(encoding="utf-8")
    sumr = {model.name: (model.t2v["sumr"], model.v2t["sumr"]) for model in result.models}
    gains = [
        f"{after - before:+.1f}" for after, before in zip(sumr["student taught"], sumr["student alone"], strict=True)
    ]
    assert re.search(
        rf"student taught, less student alone: SumR .?{gains[0][1:]} .* to .* text to video and .?{gains[1][1:]} ", page
    )
    assert "without a teacher" in page
    assert f"reaches {sumr["with the teacher's clips"][0]:.1f}" in page.replace("&#39;", "'")
    played = [base64.b64decode(clip) for clip in re.findall('<video src="data:video/mp4;base64,([^"]+)"', page)]
    assert played == [Path(answer.path).read_bytes() for found in result.searches.queries for answer in found.answers]
    assert "media-src data:" in page


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are trained one after the other, in this process: none has to be started."""
    monkeypatch.setattr(chain, "cores", lambda: 1)


def test_given_again_it_finds_everything(
    finished: tuple[Path, DemoResult, Lines], tiny: Overrides, one_core: None
) -> None:
    folder, result, _ = finished
    lines = Lines()
    again = run_demo(folder, lines, tiny)
    assert [step.found for step in again.steps] == [True] * 6 + [False] * 3
    assert sum(": found, " in line for line in lines.lines) == 6
    assert len(lines.lines) == 6 + 2 * 3 + 6  # each evaluation says where it computes
    assert numbers(again) == numbers(result)
    assert again.searches.queries == result.searches.queries


def test_its_settings_serve_every_verb(finished: tuple[Path, DemoResult, Lines]) -> None:
    folder, result, _ = finished
    config = load_config(folder / "demo.yaml")
    assert config.run_folder == Path(result.models[3].run)
    assert config.evaluate_run == config.run_folder
    assert config.search_run == Path(result.models[4].run)
    first = result.searches.queries[0]
    found = search(config, [first.query]).queries[0]
    assert [answer.path for answer in found.answers] == [answer.path for answer in first.answers]
    # one sentence or three at a time: other matrix sizes, other order of float32 sums
    assert [answer.cosine for answer in found.answers] == pytest.approx([a.cosine for a in first.answers], abs=1e-5)


def test_a_demo_of_an_earlier_release_is_left_as_it_is(tmp_path: Path, tiny: Overrides) -> None:
    (tmp_path / "demo.yaml").write_text("extends: demo\ndata: {captions: captions.csv}\n")
    (tmp_path / "captions.csv").write_text("video,caption,split\n")
    with pytest.raises(TeachclipError, match="of an earlier release") as caught:
        run_demo(tmp_path, Lines(), tiny)
    assert "take another folder" in str(caught.value.hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captions.csv", "demo.yaml"]
    assert (tmp_path / "captions.csv").read_text() == "video,caption,split\n"


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path, tiny: Overrides) -> None:
    """A demo writes captions.csv, and a user may have one of that name."""
    (tmp_path / "captions.csv").write_text("mine")
    with pytest.raises(TeachclipError, match=r"something else than a demo: captions\.csv") as caught:
        run_demo(tmp_path, None, tiny)
    assert "delete" not in str(caught.value.hint)
    assert [path.name for path in tmp_path.iterdir()] == ["captions.csv"]


def test_other_settings_are_refused_by_name(finished: tuple[Path, DemoResult, Lines], tiny: Overrides) -> None:
    folder, _, _ = finished
    with pytest.raises(TeachclipError, match="picture_steps") as caught:
        run_demo(folder, None, [*tiny, "shapes.picture_steps=7"])
    assert caught.value.hint.otherwise.action == MakeDemo("OTHER")


def test_stopped_anywhere_it_goes_on_to_the_same_numbers(
    finished: tuple[Path, DemoResult, Lines], tiny: Overrides, tmp_path: Path, one_core: None
) -> None:
    _, result, lines = finished
    stops = 0
    for stop in range(3, lines.events, lines.events // 9):
        try:
            run_demo(tmp_path / "demo", Lines(stop), tiny)
        except KeyboardInterrupt:
            stops += 1
        else:
            break
    assert stops >= 4
    assert numbers(run_demo(tmp_path / "demo", None, tiny)) == numbers(result)


SCRIPT = """
import sys
from pathlib import Path
from teachclip.pipeline.demo.chain import run_demo
if __name__ == "__main__":
    run_demo(Path(sys.argv[1]), None, sys.argv[2:])
"""


@pytest.mark.slow
def test_killed_in_training_it_goes_on(
    finished: tuple[Path, DemoResult, Lines], tiny: Overrides, tmp_path: Path
) -> None:
    _, result, _ = finished
    script, folder = tmp_path / "demo.py", tmp_path / "demo"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), *tiny]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
    try:
        for _ in ticking(200.0):
            if (folder / "work/runs/xclip/metrics.jsonl").exists() or process.poll() is not None:
                break
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder / "report.html").exists()
    assert numbers(run_demo(folder, None, tiny)) == numbers(result)


def ticking(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)
    raise TimeoutError
