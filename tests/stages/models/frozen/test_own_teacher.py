"""The teacher of docs/teachers.md through score and train, and what one hears of a class that is none."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.loading import dump_config
from teachclip.configs.schema import TeacherConfig
from teachclip.errors import CacheMismatchError, ConfigError, PluginError
from teachclip.pipeline.cli.main import app
from teachclip.remedies import Again, Option
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.runtime.run_folder import RunFolder
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train
from typer.testing import CliRunner

PAGE = Path(__file__).parents[4] / "docs/teachers.md"
MINE = {"name": "mine", "plugin": "trigrams:Trigrams", "options": {"frames": 4}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the page's example in it; modules written into it are forgotten afterwards."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "trigrams.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def config(world: Any, teacher: dict[str, Any], store: str) -> Any:
    """The world's configuration, scored by `teacher` alone and trained with it."""
    return world.config(
        score={"teachers": [teacher], "store": f"{store}.zarr"},
        train={"run": f"runs/{store}", "teachers": [teacher["name"]], "epochs": 1},
    )


def logged(settings: Any) -> list[dict[str, Any]]:
    return [line for line in RunFolder(settings.run_folder).metrics() if line["kind"] == "train"]


def test_the_pages_teacher_is_some_forty_lines(folder: Path) -> None:
    lines = [line for line in (folder / "trigrams.py").read_text().splitlines() if line.strip()]
    assert len(lines) <= 48


def test_the_pages_teacher_scores_and_teaches(world: Any, folder: Path) -> None:
    (folder / "renamed.py").write_text((folder / "trigrams.py").read_text())
    settings = config(world, MINE, "mine")
    (scores,) = score(settings).teachers
    assert (scores.texts, scores.videos) == (28, 14)
    cache = ScoreStore.open(settings.score_store).teacher("mine")
    assert (cache.scale, cache.frame_logits, cache.identity["words"]) == (20.0, True, 0)
    train(settings)
    assert all(line["coarse"] > 0 and line["fine"] > 0 for line in logged(settings))

    # Another module name or place of the same weights is the same teacher, other weights are not.
    teacher = load_teacher(TeacherConfig(**MINE), None)
    weights = {"text": teacher._teacher.text, "image": teacher._teacher.image}
    save_file(weights, folder / "elsewhere.safetensors")
    same = MINE | {"plugin": "renamed:Trigrams", "options": {"frames": 4, "weights": "elsewhere.safetensors"}}
    assert score(config(world, same, "mine")).teachers[0].shards_now == 0
    with pytest.raises(CacheMismatchError) as refused:
        score(config(world, MINE | {"options": {"frames": 4, "seed": 1}}, "mine"))
    assert refused.value.details[0].startswith("weights: ")


def test_it_teaches_in_the_step_what_it_teaches_from_the_cache(world: Any, folder: Path) -> None:
    cached, online = config(world, MINE, "exact"), config(world, MINE, "online")
    cached = cached.model_copy(update={"score": cached.score.model_copy(update={"coarse": "float32"})})
    online = online.model_copy(update={"train": online.train.model_copy(update={"teaching": "online"})})
    score(cached)
    train(cached)
    train(online)
    for key in ("coarse", "fine"):
        np.testing.assert_allclose(*([line[key] for line in logged(each)] for each in (cached, online)), rtol=2e-6)


def test_a_teacher_without_frame_scores_teaches_coarsely(world: Any, folder: Path) -> None:
    code = (folder / "trigrams.py").read_text()
    (folder / "trigrams.py").write_text(code[: code.index("    def frame_logits")])
    settings = config(world, MINE, "coarse-only")
    score(settings)
    assert not ScoreStore.open(settings.score_store).teacher("mine").frame_logits
    with pytest.raises(ConfigError, match="no frame scores"):
        train(settings)
    loss = settings.train.loss.model_copy(update={"fine": 0.0})
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"loss": loss, "run": Path("runs/coarse-only-2")})}
    )
    train(settings)
    assert all(line["coarse"] > 0 for line in logged(settings))


def test_a_trained_student_teaches(world: Any) -> None:
    train(world.config(train={"run": "runs/first", "epochs": 1}))
    settings = config(world, {"name": "student", "checkpoint": "runs/first"}, "second")
    score(settings)
    assert ScoreStore.open(settings.score_store).teacher("student").frame_logits
    train(settings)
    assert all(line["coarse"] > 0 and line["fine"] > 0 for line in logged(settings))


def test_an_installed_package_brings_a_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = folder / "site"
    (site / "brought-1.0.dist-info").mkdir(parents=True)
    (site / "brought-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (site / "brought-1.0.dist-info/entry_points.txt").write_text("[teachclip.teachers]\ngrams = brought:Trigrams\n")
    (site / "brought.py").write_text((folder / "trigrams.py").read_text())
    with pytest.raises(ConfigError, match=r"no entry point 'grams' in teachclip\.teachers"):
        load_teacher(TeacherConfig(name="mine", plugin="grams"), None)
    monkeypatch.syspath_prepend(site)
    teacher = load_teacher(TeacherConfig(name="mine", plugin="grams"), None)
    assert (teacher.name, teacher.frames, teacher.scale) == ("mine", 12, 20.0)


@pytest.fixture
def changed(folder: Path) -> Callable[[str, str], Any]:
    """`changed(old, new)`: the example with `old` replaced, loaded as a teacher."""

    def load(old: str, new: str) -> Any:
        code = (folder / "trigrams.py").read_text()
        assert old in code
        (folder / "trigrams.py").write_text(code.replace(old, new))
        return load_teacher(TeacherConfig(**MINE), None)

    return load


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    scale = 20.0", "    scales = 20.0", "scale: missing"),
        ("scale = 20.0", "scale = 0.0", "scale: 0.0; it is a positive number"),
        ("scale = 20.0", 'scale = float("inf")', "scale: inf"),
        ("self.frames, ", "self.slots, ", "frames: missing"),
        ("words = 0", "words = None", "words: missing"),
        ("score_version = 1", 'score_version = "1"', "score_version: '1'"),
        (".hexdigest()", ".digest()", "weights_digest: a bytes; it is a str"),
        ("def score(", "def scores(", "the method score(texts, videos)"),
    ],
)
def test_what_a_class_lacks_is_said_when_it_is_loaded(changed: Any, old: str, new: str, said: str) -> None:
    with pytest.raises(PluginError, match=r"'mine' \(trigrams:Trigrams\) lacks what a teacher needs") as refused:
        changed(old, new)
    (line,) = refused.value.details
    assert said in line


def use(teacher: Any) -> None:
    """Every method once: 5 texts, 3 videos."""
    frames, mask = torch.zeros(3, 4, 3, 8, 8, dtype=torch.uint8), torch.ones(3, 4, dtype=torch.bool)
    videos = teacher.encode_videos(frames, mask, torch.zeros(3, 4, dtype=torch.float64))
    texts = teacher.encode_texts(["a b c"] * 5)
    teacher.score(texts, videos)
    own = {key: value[torch.tensor([0, 1, 2, 0, 1])] for key, value in videos.items()}
    teacher.frame_logits(texts, own)


def test_the_example_passes_the_checks(changed: Any) -> None:
    use(changed("20.0", "20"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'return texts["text"] @ videos["video"].T',
            'return videos["video"] @ texts["text"].T',
            r"score returns a tensor \[3, 5\] instead of a tensor \[5, 3\]",
        ),
        (
            'return {"frames": vectors, "video"',
            'return {"frames": vectors[0], "video"',
            "encode_videos returns 'frames'",
        ),
        (
            'return {"text": ',
            'return [1, 2]\n        return {"text": ',
            "encode_texts returns a list instead of a dict",
        ),
        ('"td,tfd->tf"', '"td,tfd->t"', r"frame_logits returns a tensor \[5\] instead of a tensor \[5, 4\]"),
        ("(small - 0.45) / 0.25", "(small - 0.45) / 0", "encode_videos returns values that are not finite"),
        (
            'return texts["text"] @ videos["video"].T',
            'return (texts["text"] @ videos["video"].T).softmax(1)',
            "score returns other scores for a pair when fewer",
        ),
    ],
)
def test_what_a_method_returns_is_checked(changed: Any, old: str, new: str, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        use(changed(old, new))


def test_what_it_raises_is_told_with_its_line(changed: Any, folder: Path) -> None:
    teacher = changed('texts["text"] @ videos', 'texts["text"][:, 1:] @ videos')
    with pytest.raises(PluginError, match=r"teacher 'mine' \(trigrams:Trigrams\): score failed") as failed:
        use(teacher)
    kind, place = failed.value.details
    assert kind.startswith("RuntimeError: ")
    lines = (folder / "trigrams.py").read_text().splitlines()
    line = next(k for k, text in enumerate(lines, 1) if "[:, 1:] @" in text)
    assert place == f"{folder / 'trigrams.py'}:{line}, in score"
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert failed.value.hint.action == Again(Option.TRACEBACK)


@pytest.mark.parametrize("debug", [False, True])
def test_a_failing_class_costs_one_screen_on_the_command_line(world: Any, folder: Path, debug: bool) -> None:
    code = (folder / "trigrams.py").read_text()
    (folder / "trigrams.py").write_text(code.replace("caption.lower()", "caption.lowered()"))
    (folder / "config.yaml").write_text(dump_config(config(world, MINE, "failing")))
    command = ["score", "config.yaml", "--quiet", *(["--debug"] if debug else [])]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    said = result.stderr.splitlines()
    assert said[0] == "error: teacher 'mine' (trigrams:Trigrams): encode_texts failed"
    assert said[1].strip() == "AttributeError: 'str' object has no attribute 'lowered'"
    assert said[2].strip().startswith(f"{folder / 'trigrams.py'}:")
    assert ("Traceback" in result.stderr) == debug
    assert (len(said) < 6) != debug


def test_options_that_it_does_not_know(folder: Path) -> None:
    with pytest.raises(PluginError, match="making it failed") as failed:
        load_teacher(TeacherConfig(name="mine", plugin="trigrams:Trigrams", options={"depth": 3}), None)
    assert "unexpected keyword argument 'depth'" in failed.value.details[0]


def test_frames_of_another_number_are_refused(world: Any, folder: Path) -> None:
    with pytest.raises(PluginError, match="takes 12 frames a video; these have 4"):
        score(config(world, {"name": "mine", "plugin": "trigrams:Trigrams"}, "twelve"))
