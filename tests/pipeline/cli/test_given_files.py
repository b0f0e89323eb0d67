"""What is given in place of a configuration, a store, a run or a file to be written is told what belongs there."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

type Invoke = Callable[..., Result]

CONFIG_IS = "a configuration is a YAML file that names your captions and your settings"
VERBS = [
    ["prepare", "{}"],
    ["score", "{}"],
    ["denoise", "{}"],
    ["train", "{}"],
    ["evaluate", "{}"],
    ["evaluate", "own_videos.yaml", "--on", "{}"],
    ["search", "{}", "a dog"],
    ["weights", "{}", "runs/a"],
    ["cost", "{}"],
    ["reproduce", "table5", "{}"],
    ["data", "check", "{}"],
    ["config", "show", "{}"],
    ["config", "diff", "{}", "own_videos.yaml"],
    ["cache", "estimate", "{}"],
    ["cache", "extend", "{}"],
    ["cache", "repair", "{}"],
    ["cache", "report", "scores.zarr", "--captions", "{}"],
]


@pytest.fixture
def there(folder: Path) -> Path:
    """What lies in a project."""
    (folder / "clips").mkdir()
    (folder / "clips/a.mp4").write_bytes(b"\0\0\0\x18ftypmp42\x83\xff")
    (folder / "captions.csv").write_text("video,caption\na.mp4,a dog: it runs\n")
    (folder / "sweep.yaml").write_text("base: own_videos.yaml\ngrid: {train.seed: [1, 2]}\n")
    (folder / "runs/a").mkdir(parents=True)
    (folder / "runs/a/config.yaml").write_text("{}\n")
    (folder / "runs/a/run.json").write_text('{"train.epochs": 3, "train.seed": 1}')
    (folder / "runs/a/result.json").write_text('{"run": "runs/a", "videos": 3}')
    (folder / "scores.zarr").mkdir()
    (folder / "scores.zarr/zarr.json").write_text("{}")
    (folder / "recipe.yaml").write_text("kitchen: 1\nbakery: 2\n")
    return folder


GIVEN = {
    "clips": f"this is a folder; {CONFIG_IS}",
    "clips/a.mp4": f"this is a video; {CONFIG_IS}",
    "captions.csv": f"this is a caption file; {CONFIG_IS}",
    "runs/a": f"this is a run folder; {CONFIG_IS}",
    "runs/a/run.json": f"this is what a run wrote of itself; {CONFIG_IS}",
    "runs/a/result.json": f"this is what a run wrote of itself; {CONFIG_IS}",
    "scores.zarr": f"this is a score store; {CONFIG_IS}",
    "sweep.yaml": "this is a sweep, which names a configuration as its base",
    "recipe.yaml": "this is no configuration: it holds kitchen, bakery, and none of the sections work, data",
}
HINTS = {
    "captions.csv": "name it in one, as data.captions",
    "runs/a": "its configuration is runs/a/config.yaml",
    "runs/a/run.json": "its configuration is runs/a/config.yaml",
    "sweep.yaml": "run it: teachclip sweep sweep.yaml",
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_says_what_a_configuration_is(invoke: Invoke, there: Path, verb: list[str], given: str) -> None:
    result = invoke(*(word.replace("{}", given) for word in verb))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {given}: {GIVEN[given]}"), result.output
    assert HINTS.get(given, "") in result.stderr


@pytest.mark.parametrize("own", [True, False])
def test_a_hint_never_writes_over_a_file(invoke: Invoke, there: Path, own: bool) -> None:
    (there / "own_videos.yaml").unlink(missing_ok=own)
    if own:
        (there / "own_videos.yaml").write_text("{}")
    hint = invoke("prepare", "clips").stderr.splitlines()[-1]
    assert hint.endswith("teachclip config template" + ("" if own else " > own_videos.yaml"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["search", "a red square", "own_videos.yaml"], ["search", "own_videos.yaml", "a red square"]),
        (["search", "a", "red", "own_videos.yaml", "--json"], ["search", "own_videos.yaml", "a", "red", "--json"]),
        (["weights", "runs/a", "own_videos.yaml"], ["weights", "own_videos.yaml", "runs/a"]),
        (["reproduce", "own_videos.yaml", "table5"], ["reproduce", "table5", "own_videos.yaml"]),
    ],
)
def test_swapped_arguments_are_put_in_order(invoke: Invoke, there: Path, given: list[str], meant: list[str]) -> None:
    result = invoke(*given)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(f" comes first: {shlex.join(['teachclip', *meant])}")


def test_a_sentence_without_a_configuration_is_told_which_there_are(invoke: Invoke, there: Path) -> None:
    assert "did you mean own_videos.yaml or recipe.yaml or sweep.yaml?" in invoke("search", "a dog", "runs").stderr
    assert "config template > new.yaml" in invoke("search", "new.yaml", "a dog").stderr
    for path in there.glob("*.yaml"):
        path.unlink()
    result = invoke("search", "a dog", "runs")
    assert result.stderr.splitlines()[-1] == "write one to start from: teachclip config template > own_videos.yaml"


def test_a_sweep_is_told_what_a_sweep_is(invoke: Invoke, there: Path) -> None:
    assert "this is a folder; a sweep is a YAML file with base, grid, runs" in invoke("sweep", "clips").stderr
    (there / "mine.yaml").write_text("train: {seed: 1}\n")
    result = invoke("sweep", "mine.yaml")
    assert "this is a configuration (train), not a sweep" in result.stderr
    assert result.stderr.splitlines()[-1] == "how a sweep is written: teachclip docs guide/reproduce"
    assert invoke("docs", "guide/reproduce").exit_code == 0


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "report", "gc", "rm", "export", "merge", "diff"], ids=str)
def test_a_configuration_is_no_store(invoke: Invoke, there: Path, verb: str) -> None:
    more = {"rm": ["x"], "export": ["x", "out"], "merge": ["other"], "diff": ["scores.zarr:x"]}
    result = invoke("cache", verb, "own_videos.yaml", *more.get(verb, []))
    assert result.exit_code == 2
    assert f"own_videos.yaml is a configuration, whose store is {there}/work/scores.zarr" in result.stderr


@pytest.mark.parametrize(("given", "meant"), [(".", "scores.zarr"), ("score.zarr", "scores.zarr")])
def test_a_store_that_is_near_is_named(invoke: Invoke, there: Path, given: str, meant: str) -> None:
    assert f"did you mean {meant}?" in invoke("cache", "ls", given).stderr


def test_a_configuration_is_no_run(invoke: Invoke, there: Path) -> None:
    assert f"its run is {there}/work/runs/student" in invoke("report", "own_videos.yaml").stderr


@pytest.mark.parametrize(
    "verb",
    [
        ["report", "runs/a"],
        ["cost"],
        ["sweep", "sweep.yaml"],
        ["reproduce", "table1"],
        ["cache", "report", "scores.zarr"],
    ],
    ids=" ".join,
)
def test_no_folder_is_made_silently_for_what_is_written(invoke: Invoke, there: Path, verb: list[str]) -> None:
    result = invoke(*verb, "--out", "new/dir/x.html")
    assert result.exit_code == 2
    assert result.stderr.endswith("there is no folder new/dir\nmake it first: mkdir -p new/dir\n")
    assert not (there / "new").exists()
    assert "this is a folder; --out names the file" in invoke(*verb, "--out", "runs").stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["search", "own_videos.yaml", "a dog", "--k", "3"], "it is a setting: --set search.top=3"),
        (["search", "own_videos.yaml", "a dog", "--run", "runs/a"], "it is a setting: --set search.run=runs/a"),
        (["train", "own_videos.yaml", "--batch-size", "64"], "it is a setting: --set train.batch_size=64"),
        (["train", "own_videos.yaml", "--epoch", "4"], "it is a setting: --set train.epochs=4"),
        (["score", "own_videos.yaml", "--device=cpu"], "it is a setting: --set score.device=cpu"),
        (["train", "own_videos.yaml", "--train.seed", "4"], "it is a setting: --set train.seed=4"),
        (["train", "own_videos.yaml", "--nonsense"], "settings are changed by --set KEY=VALUE"),
        (["train", "own_videos.yaml", "--sett", "a=1"], "(Possible options: --quiet, --set)"),
        (["report", "runs/a", "--k"], "No such option: --k\n"),
        (["evaluate", "runs/a", "own_videos.yaml"], "evaluate takes CONFIG; runs are named by --run"),
    ],
)
def test_an_option_that_there_is_not_is_told_as_a_setting(invoke: Invoke, words: list[str], told: str) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split()) + "\n"


def test_the_shell_completes_verbs_and_options(invoke: Invoke) -> None:
    def completed(words: str, at: int) -> list[str]:
        asked = {"_TEACHCLIP_COMPLETE": "complete_bash", "COMP_WORDS": f"teachclip {words}", "COMP_CWORD": str(at)}
        return invoke(**asked).output.split()

    assert completed("tr", 1) == ["train"]
    assert completed("cache ver", 2) == ["verify"]
    assert completed("train own_videos.yaml --s", 3) == ["--set"]
    assert completed("train own", 2) == []  # so that the shell itself completes files


def test_pages_are_found_by_the_names_that_messages_use(invoke: Invoke) -> None:
    page = invoke("docs", "docs/guide/data.md").stdout
    assert page == invoke("docs", "guide/data").stdout == invoke("docs", "data").stdout
    assert page.startswith("# ")
    assert "guide/data " in invoke("docs").stdout
    assert "did you mean data?" in invoke("docs", "dat").stderr
