"""Configuration: what is accepted, what is refused and with which words."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.configs.changed_defaults import is_named, value_of, with_values
from teachclip.configs.loading import dump_config, load_config, shipped
from teachclip.configs.schema import Config
from teachclip.errors import ConfigError


def write(folder: Path, text: str, name: str = "conf.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_values_reach_the_model(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "train: {batch_size: 64, loss: {fine: 0}, optim: {lr: 1e-4, clip_norm: null}}\n"
        "score:\n  teachers:\n    - {name: xclip, checkpoint: runs/teacher}\n",
    )
    config = load_config(path)
    assert config.train.batch_size == 64
    assert config.train.loss.fine == 0
    assert config.train.optim.lr == 1e-4
    assert config.train.optim.clip_norm is None
    assert config.score.teachers[0].name == "xclip"
    assert config.train.epochs == Config().train.epochs


def test_an_empty_file_and_empty_sections_are_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  optim:\n    # lr: 3\n  loss:\nscore:\n")
    assert load_config(path).train == Config().train
    assert load_config(write(tmp_path, "# nothing\n", "other.yaml")).train == Config().train


@pytest.mark.parametrize(
    ("text", "overrides", "named"),
    [
        ("", (), False),
        ("train: {loss: }\n", (), False),
        ("extends: recipes/default\n", (), False),
        ("extends: recipes/default\ntrain: {loss: {fine: 0}}\n", ("train.loss.coarse=2",), False),
        ("extends: base.yaml\n", (), False),
        ("extends: recipes/default\ntrain: {loss: {infonce: 0.2}}\n", (), True),
        ("extends: recipes/default\n", ("train.loss.infonce=1",), True),
        ("extends: recipes/default\n", ("train.loss={infonce: 0.2}",), True),
        ("extends: [recipes/default, recipes/paper]\n", (), True),
        ("extends: recipes/official\n", (), True),
        ("extends: [base.yaml, own.yaml]\n", (), True),
        ("extends: demo\n", (), True),
    ],
)
def test_a_setting_is_named_by_users_and_not_by_the_defaults(
    tmp_path: Path, text: str, overrides: tuple[str, ...], named: bool
) -> None:
    write(tmp_path, "extends: recipes/default\n", "base.yaml")
    write(tmp_path, "train: {loss: {infonce: 0.2}}\n", "own.yaml")
    config = load_config(write(tmp_path, text), overrides)
    assert is_named(config, "train.loss.infonce") is named
    assert value_of(config, "train.loss.infonce") == (1 if "paper" in text or "=1" in str(overrides) else 0.2)
    assert is_named(load_config(write(tmp_path, dump_config(config), "whole.yaml")), "train.loss.infonce")
    assert not is_named(load_config(None), "train.loss.infonce")


def test_values_set_afterwards_are_named_and_nothing_else_is() -> None:
    config = Config()
    changed = with_values(config, {"train.loss.infonce": 1.0, "train.seed": 3})
    assert (changed.train.loss.infonce, changed.train.seed, changed.train.loss.coarse) == (1.0, 3, 1.0)
    assert [key for key in ("train.loss.infonce", "train.loss.coarse") if is_named(changed, key)] == [
        "train.loss.infonce"
    ]
    assert config == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  bach_size: 3\n", ":2: train.bach_size: no such key; did you mean train.batch_size?"),
        ("work: w\nbatch_size: 3\n", ":2: batch_size: no such key; did you mean train.batch_size?"),
        ("zzz: 3\n", ":1: zzz: no such key; known here: work, data, prepare, features, score, denoise, train"),
        ("train:\n\n  batch_size: 1\n", ":3: train.batch_size: 1 must be greater than 1"),
        ("train: {seed: -1}\n", ":1: train.seed: -1 must be at least 0"),
        ("train: {batch_size: '64'}\n", ":1: train.batch_size: '64' must be a whole number"),
        ("train: {batch_size: true}\n", ":1: train.batch_size: true must be a whole number"),
        ("train: {batch_size: 6.5}\n", ":1: train.batch_size: 6.5 must be a whole number"),
        ("data: {val_fraction: 1}\n", ":1: data.val_fraction: 1 must be less than 1.0"),
        ("train:\n  optim:\n    lr: .nan\n", ":3: train.optim.lr: nan must be a finite number"),
        ("train:\n  loss:\n    infonce: .inf\n", ":3: train.loss.infonce: inf must be a finite number"),
        (
            "train:\n  optim: {optimiser: adammw}\n",
            ":2: train.optim.optimiser: 'adammw' is not one of adamw, adam, bert-adam, radam, "
            "ranger; did you mean adamw?",
        ),
        ("train: 3\n", ":1: train: 3 must be a section: keys and values below it"),
        ("train: {teachers: [a, a]}\n", ":1: train.teachers: a is named twice"),
        ("train: {teachers: xclip}\n", ":1: train.teachers: 'xclip' must be a list, [...]"),
        ("train: {network: {mask_padding: no}}\n", ":1: train.network.mask_padding: 'no' must be true or false"),
        ("data: {captions: 7}\n", ":1: data.captions: 7 must be text; put it in quotes"),
        (
            "score:\n  teachers:\n    - name: a\n",
            ":3: a teacher is one of checkpoint, openclip, transformers, cross_encoder",
        ),
        ("score: {teachers: [{name: a/b, checkpoint: x}]}", "score.teachers.0.name: 'a/b' must be a name of letters"),
        ("work: a\nwork: b\n", ":2: work: given twice, first at line 1\nKeep one of the two."),
        ("train:\n  seed: 1\n  seed: 1\n", ":3: seed: given twice, first at line 2"),
        ("train: [1\nwork: 2\n", ":2: not valid YAML: "),
        ("work: !!python/object/apply:os.system ['true']\n", ":1: the tag !!python/object/apply:os.system"),
        ("work: !!int abc\n", ":1: the tag !!int is not allowed here"),
        ("work: !mine abc\n", ":1: the tag !mine is not allowed here"),
        ("work: a\n---\nwork: b\n", "not valid YAML: but found another document"),
        ("[a, b]: 3\n", ":1: a key must be a word"),
        ("video,caption\n", ":1: not a configuration"),
        ('work: "a\\0b"\n', ":1: 'a\\x00b' holds the character '\\x00'"),
        ('work: "\\UFFFFFFFF"\n', "not valid YAML"),
        ("work: &a [*a]\n", "nested too deeply"),
        ("work: " + "[" * 3000, "nested too deeply"),
        ("work: " + "9" * 5000, "conf.yaml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert expected in message


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    levels = "\n".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    assert "more than" in refusal(write(tmp_path, f"k0: &a0 [1]\n{levels}\n"))


def test_several_mistakes_are_all_told_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  seeed: 1\n  epochs: 0\nprepare:\n  max_frames: x\n")
    assert refusal(path).splitlines() == [
        "3 mistakes in the configuration",
        f"{path}:2: train.seeed: no such key; did you mean train.seed?",
        f"{path}:3: train.epochs: 0 must be greater than 0",
        f"{path}:5: prepare.max_frames: 'x' must be a whole number",
    ]


def test_rules_between_keys_point_at_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  network:\n    pooling: mean\n  teachers: [xclip]\n  loss:\n    fine: 2\n")
    assert refusal(path).startswith(f"{path}:6: train.loss.fine: mean pooling has no frame weights to teach")
    path = write(tmp_path, "train:\n  teachers: [xclip]\n  network:\n    kind: xclip\n")
    assert refusal(path).startswith(f"{path}:2: train.teachers: a teacher is trained by itself")
    path = write(tmp_path, "train:\n  teaching: online\n  teachers: [xclip]\n")
    assert refusal(path) == f"{path}:3: train.teachers: teaching online needs xclip among score.teachers"
    path = write(tmp_path, "train:\n  optim:\n    optimiser: adam\n")
    assert refusal(path).startswith(f"{path}:2: train.optim.weight_decay: Adam has no decoupled decay")
    twice = "score:\n  teachers:\n    - {name: a, checkpoint: x}\n    - {name: a, checkpoint: y}\n"
    assert refusal(write(tmp_path, twice)).startswith(f"{path}:2: score.teachers: each needs a name of its own, a")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.bach_size=3", "--set train.bach_size=3: no such key; did you mean train.batch_size?"),
        ("train.batch_size=x", "--set train.batch_size=x: train.batch_size: 'x' must be a whole number"),
        ("train.optim=3", "--set train.optim=3: train.optim: 3 must be a section: keys and values below it"),
        ("train.batch_size", "--set train.batch_size: give it as key=value\nfor example: train.batch_size=64"),
        ("=3", "--set =3: give it as key=value\nfor example: train.batch_size=64"),
        ("train..seed=3", "--set train..seed=3: give it as key=value\nfor example: train.batch_size=64"),
        ("train.seed=[", "--set train.seed=[: not valid YAML: expected the node content, but found '<stream end>'"),
        ("train.network.kind=xclp", "did you mean xclip?"),
    ],
)
def test_overrides_are_refused_as_clearly(override: str, expected: str) -> None:
    assert refusal(None, override).endswith(expected)


def test_overrides_win_and_reach_into_lists(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {seed: 1, epochs: 7}\nscore: {teachers: [{name: a, checkpoint: x}]}\n")
    config = load_config(path, ["train.seed=2", "train.seed=3", "score.teachers.0.name=b", "train.init=null"])
    assert (config.train.seed, config.train.epochs) == (3, 7)
    assert config.score.teachers[0].name == "b"
    assert config.score.teachers[0].checkpoint == Path("x")
    assert load_config(None, ["train.teachers=[a, b]"]).train.teachers == ("a", "b")
    assert "1 entry is there, counted from 0" in refusal(path, "score.teachers.1.name=b")


def test_extends_later_wins_and_the_file_wins_over_all(tmp_path: Path) -> None:
    write(tmp_path, "train: {seed: 1, epochs: 1, batch_size: 11}\n", "a.yaml")
    write(tmp_path, "extends: ../a.yaml\ntrain: {seed: 2, epochs: 2}\n", "sub/b.yaml")
    path = write(tmp_path, "extends: [recipes/official, sub/b.yaml]\ntrain: {seed: 3}\n")
    train = load_config(path).train
    assert (train.seed, train.epochs, train.batch_size) == (3, 2, 11)
    assert train.optim.optimiser == "bert-adam"


def test_an_empty_section_keeps_what_the_file_extends(tmp_path: Path) -> None:
    """As a template's does, whose keys are all commented out."""
    path = write(tmp_path, "extends: recipes/official\ntrain:\n  optim:\n    # lr: 3\n")
    assert load_config(path).train == load_config(shipped()["recipes/official"]).train


def test_a_mistake_below_extends_is_named_where_it_stands(tmp_path: Path) -> None:
    write(tmp_path, "train:\n  sead: 1\n", "a.yaml")
    path = write(tmp_path, "extends: a.yaml\n")
    assert refusal(path) == f"{tmp_path}/a.yaml:2: train.sead: no such key; did you mean train.seed?"


def test_extends_names_what_is_missing(tmp_path: Path) -> None:
    assert f":1: extends: no such file '{tmp_path}/b.yaml'" in refusal(write(tmp_path, "extends: b.yaml\n"))
    message = refusal(write(tmp_path, "extends:\n - recipes/oficial\n"))
    assert ":2: extends: 'recipes/oficial' does not come with teachclip; did you mean recipes/official?" in message
    assert ":1: extends: give a name" in refusal(write(tmp_path, "extends: {a: b}\n"))


def test_extends_in_a_circle_is_named(tmp_path: Path) -> None:
    write(tmp_path, "extends: conf.yaml\n", "b.yaml")
    path = write(tmp_path, "extends: b.yaml\n")
    assert refusal(path) == f"{tmp_path}/b.yaml:1: extends: goes in a circle, conf.yaml -> b.yaml -> conf.yaml"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "")
    assert refusal(tmp_path / "cnf.yaml").splitlines() == [
        f"{tmp_path}/cnf.yaml: no such file; did you mean conf.yaml?",
        "write one to start from",
    ]
    assert refusal(tmp_path).startswith(f"{tmp_path}: this is a folder; a configuration is a YAML file")
    assert f"did you mean {tmp_path}/conf.yaml?" in refusal(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"\x00\x01\xff\xfe")
    assert refusal(tmp_path / "a.mp4").startswith(f"{tmp_path}/a.mp4: this is a video; a configuration")
    (tmp_path / "a.dat").write_bytes(b"\x00\x01\xff\xfe")
    assert refusal(tmp_path / "a.dat").startswith(f"{tmp_path}/a.dat: this is no text (byte 0xff at 2); a")
    (tmp_path / "big").write_bytes(b"x" * ((1 << 20) + 1))
    assert refusal(tmp_path / "big") == f"{tmp_path}/big: too large to be a configuration"


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "data: {videos: ../clips}\n", "base/base.yaml")
    path = write(tmp_path, "extends: ../base/base.yaml\ntrain: {run: runs/x}\n", "own/conf.yaml")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    config = load_config(Path("../own/conf.yaml"))
    assert os.path.normpath(config.work) == str(tmp_path / "own/work")
    assert os.path.normpath(config.data.captions) == str(tmp_path / "own/captions.csv")
    assert config.data.videos is not None
    assert os.path.normpath(config.data.videos) == str(tmp_path / "clips")
    assert config.run_folder == config.work / "runs/x"
    assert load_config(path, ["work=here"]).work == tmp_path / "cwd/here"
    assert load_config(path, ["work=/abs"]).frames_folder == Path("/abs/frames")
    assert load_config(None).work == tmp_path / "cwd/work"


def test_checkpoints_lie_beside_the_file_or_below_work(tmp_path: Path) -> None:
    text = (
        "train: {init: a.safetensors, network: {trunk: {weights: w.pt}}}\n"
        "score: {teachers: [{name: t, checkpoint: b.bin}]}\nevaluate: {run: c}\nsearch: {run: d}\n"
    )
    path = write(tmp_path, text)
    config = load_config(path)
    teacher = config.score.teachers[0]
    assert config.init_checkpoint == tmp_path / "work/a.safetensors"
    assert config.teacher_checkpoint(teacher) == tmp_path / "work/b.bin"
    assert config.evaluate_run == tmp_path / "work/c"
    assert config.search_run == tmp_path / "work/d"
    assert config.train.network.trunk.weights == "w.pt"
    for name in ("a.safetensors", "b.bin", "c", "d", "w.pt"):
        (tmp_path / name).touch()
    config = load_config(path)
    assert config.init_checkpoint == tmp_path / "a.safetensors"
    assert config.teacher_checkpoint(config.score.teachers[0]) == tmp_path / "b.bin"
    assert config.evaluate_run == tmp_path / "c"
    assert config.search_run == tmp_path / "d"
    assert config.train.network.trunk.weights == str(tmp_path / "w.pt")


def test_a_folder_named_like_a_pretrained_tag_is_no_weights_file(tmp_path: Path) -> None:
    (tmp_path / "openai").mkdir()
    path = write(tmp_path, "train: {network: {trunk: {weights: openai}}}\n")
    assert load_config(path).train.network.trunk.weights == "openai"


def test_a_run_folder_brings_weights(tmp_path: Path) -> None:
    run = tmp_path / "work/runs/a"
    run.mkdir(parents=True)
    path = write(tmp_path, "score: {teachers: [{name: t, openclip: {weights: runs/a}}]}\n")
    assert load_config(path).score.teachers[0].openclip.weights == "runs/a"
    (run / "best.safetensors").touch()
    assert load_config(path).score.teachers[0].openclip.weights == str(run)


NAMES = st.one_of(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True),
    st.sampled_from(["1e-4", "12", "no", "null", "0o7", "1_000", "1.5", "2020-01-01", "0x1F"]),
)


@given(name=NAMES, path=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1))
@settings(max_examples=150, deadline=None)
def test_dump_reads_back_to_the_same(tmp_path_factory: pytest.TempPathFactory, name: str, path: str) -> None:
    config = load_config(None).model_copy(update={"work": Path("/w") / path})
    config = config.model_copy(update={"train": config.train.model_copy(update={"teachers": (name,)})})
    file = tmp_path_factory.mktemp("dump") / "conf.yaml"
    file.write_text(dump_config(config))
    assert load_config(file) == config


KEYS = st.sampled_from(
    ["train", "work", "data", "score", "teachers", "optim", "lr", "extends", "seed", "init", "x", "~"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TEXTS = st.one_of(
    st.text(max_size=200),
    st.text(alphabet="abtrain: -[]{}!&*|>'\"%@`#,?\n\t\\~0123456789.eE", max_size=80),
    VALUES.map(lambda value: yaml.safe_dump(value)),
)


def config_or_refusal(path: Path | None, *overrides: str) -> None:
    """Any other exception than a ConfigError fails the test."""
    try:
        config = load_config(path, overrides)
    except ConfigError:
        return
    assert isinstance(config, Config)


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_config_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "conf.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    config_or_refusal(file)


@given(content=st.binary(max_size=200), text=st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_bytes_and_overrides_too(tmp_path_factory: pytest.TempPathFactory, content: bytes, text: str) -> None:
    file = tmp_path_factory.mktemp("bytes") / "conf.yaml"
    file.write_bytes(content)
    config_or_refusal(file)
    for override in (text, f"train.{text}", f"work={text}", f"train.init={text}"):
        config_or_refusal(None, override)


@pytest.mark.parametrize("extends", ["", "extends: recipes/default\n"])
def test_a_teacher_is_trained_by_the_whole_of_infonce(tmp_path: Path, extends: str) -> None:
    """0.2 is a weight beside teaching."""
    path = tmp_path / "c.yaml"
    path.write_text(f"{extends}data: {{captions: captions.csv}}\n")
    weights = {
        kind: load_config(path, [f"train.network.kind={kind}"]).train.loss.infonce
        for kind in ("student", "xclip", "drl", "openclip")
    }
    assert weights == {"student": 0.2, "xclip": 1.0, "drl": 1.0, "openclip": 1.0}
    assert load_config(path, ["train.network.kind=drl", "train.loss.infonce=0.5"]).train.loss.infonce == 0.5
