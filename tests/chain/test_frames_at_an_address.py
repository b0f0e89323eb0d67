"""Frames at an address serve all who look at frames: search, re-ranking, the search page, weights, sweeps, reports."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from teachclip.cache.library.library import Library
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import Config
from teachclip.configs.sweeps import load_sweep
from teachclip.pipeline.report.collect.report import report
from teachclip.pipeline.sweep.plan import plan_sweep
from teachclip.pipeline.sweep.run import run_sweep
from teachclip.stages.analysis.frame_weights import frame_weights, thumbnails
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.serving.from_frames import index_frames
from teachclip.stages.search.stage import search
from teachclip.stages.train.stage import train

if TYPE_CHECKING:
    from conftest import Bucket, World

QUERIES = ("a red square at the left", "something yellow")


def living(world: "World", work: Path, frames: str) -> Config:
    """The world in another working folder, whose teacher, scores and student stay where they are; frames are named."""
    kept = world.root / "work"
    return Config.model_validate(
        world.config(
            prepare={"frames": frames},
            score={"teachers": [{"name": "xclip", "checkpoint": kept / "runs/xclip"}], "store": kept / "scores.zarr"},
            train={"run": "runs/student", "teachers": ["xclip"], "epochs": 1},
        ).model_dump()
        | {"work": work}
    )


@pytest.fixture(scope="module")
def here(world: "World", tmp_path_factory: pytest.TempPathFactory) -> Config:
    """With frames in a folder; a student is trained and measured."""
    config = living(world, tmp_path_factory.mktemp("here"), str(world.root / "work/frames"))
    train(config)
    evaluate(config)
    return config


@pytest.fixture
def there(world: "World", bucket: "Bucket", here: Config, tmp_path: Path) -> Config:
    """With the same frames at an address, and here's student."""
    bucket.put(world.root / "work/frames", "frames")
    config = living(world, tmp_path / "there", f"{bucket.url}/frames")
    of_here = {"run": here.run_folder}
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=of_here) for name in ("search", "evaluate")}
    )


def test_search_and_a_teacher_that_re_orders_answer_as_ever(here: Config, there: Config) -> None:
    for rerank in (None, "xclip"):
        wanted, found = (search(config, QUERIES, rerank=rerank) for config in (here, there))
        assert found.queries == wanted.queries
        assert found.queries[0].answers


def test_the_search_page_has_the_same_vectors(here: Config, there: Config) -> None:
    wanted, found = (Library.open(index_frames(config, Silent())) for config in (here, there))
    with wanted, found:
        np.testing.assert_array_equal(found.matrix(), wanted.matrix())
        assert [found.window(row) for row in found.rows.tolist()] == [
            wanted.window(row) for row in wanted.rows.tolist()
        ]


def test_weights_and_pictures_of_frames_are_the_same(here: Config, there: Config) -> None:
    wanted, found = (frame_weights(config, [here.run_folder], teacher="xclip") for config in (here, there))
    assert found.closeness == wanted.closeness
    video = found.queries[0].video
    np.testing.assert_array_equal(thumbnails(there, video), thumbnails(here, video))


def test_a_sweep_measures_a_teacher_and_trains_a_student(here: Config, there: Config, tmp_path: Path) -> None:
    rows = [{"label": "X-CLIP", "teacher": "xclip"}, {"label": "taught", "overrides": {"train.teachers": ["xclip"]}}]
    results: list[list[Any]] = []
    for name, config in (("here", here), ("there", there)):
        (tmp_path / f"{name}.yaml").write_text(dump_config(config))
        path = tmp_path / f"sweep-{name}.yaml"
        path.write_text(yaml.safe_dump({"base": f"{name}.yaml", "runs": rows}))
        sweep = load_sweep(path)
        plan = plan_sweep(sweep, sweep.base, seeds=1)
        assert not plan.problems
        results.append([result.measured for result in run_sweep(plan)])
    assert None not in results[0]
    assert results[0] == results[1]


def test_a_report_shows_the_frames(here: Config, there: Config, tmp_path: Path) -> None:
    own = there.model_copy(update={"evaluate": there.evaluate.model_copy(update={"run": Path("runs/student")})})
    train(own)
    evaluate(own)
    pictures = []
    for config in (here, own):
        page = tmp_path / "report.html"
        told = report([config.run_folder], page)
        assert not [line for line in told.left_out if line.startswith("Frames")]
        pictures.append(re.findall(r"data:image/[^\"')]+", page.read_text()))
    assert pictures[0] == pictures[1] != []
