"""A loss of the user's own: the documented example, and what is said about one that does not work."""

import importlib.metadata
import re
from pathlib import Path

import pytest
import torch
from teachclip.cache.scores.reading.labels import Labels
from teachclip.configs.loading import load_config
from teachclip.configs.schema import LossConfig
from teachclip.errors import ConfigError, PluginError
from teachclip.stages.train.losses.combined import Losses
from teachclip.stages.train.losses.own import loss_identity

PAGE = Path(__file__).resolve().parents[4] / "docs/guide/losses.md"
MASK = torch.arange(5) < torch.tensor([[5], [3], [2], [4]])


def example() -> str:
    """The module that docs/guide/losses.md shows."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """`module(text)` writes a module into the current folder and returns its name, one that no other test has."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = "own_" + re.sub(r"\W", "_", request.node.name)
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def labels(**changes):
    torch.manual_seed(0)
    given = {
        "student_logits": torch.randn(4, 4, requires_grad=True),
        "raw_weights": torch.randn(4, 5, requires_grad=True),
        "labels": [Labels(torch.randn(4, 4), torch.randn(4, 5), 1.0)],
        "mask": MASK,
    }
    return given | changes


def test_the_documented_losses_teach(module) -> None:
    name = module(example())
    losses = Losses(LossConfig(coarse_kind=f"{name}:rows_kl", fine_kind=f"{name}:best_frame"))
    given = labels()
    parts = losses(**given)
    teacher = given["labels"][0].logits.softmax(1)
    rows = (teacher * (teacher.log() - given["student_logits"].log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(parts.coarse, rows)
    best = given["labels"][0].frame_logits.masked_fill(~MASK, -1e9).argmax(1)
    fine = [-given["raw_weights"][k][MASK[k]].log_softmax(0)[best[k]] for k in range(4)]
    torch.testing.assert_close(parts.fine, torch.stack(fine).mean())
    parts.total.backward()
    assert given["student_logits"].grad.abs().sum() > 0
    assert given["raw_weights"].grad[MASK].abs().sum() > 0
    assert given["raw_weights"].grad[~MASK].eq(0).all()


def test_what_a_loss_is_given(module) -> None:
    """Teachers one by one, on the scale and at the temperature that are asked for; a mask where there is none."""
    name = module(
        "seen = []\n"
        "def coarse(student, teacher):\n    seen.append((student, teacher))\n    return (student - teacher).sum()\n"
        "def fine(raw, teacher, mask):\n    seen.append((teacher, mask))\n    return (raw * teacher).sum()\n"
    )
    config = LossConfig(
        coarse_kind=f"{name}:coarse", fine_kind=f"{name}:fine", coarse_on="cosines", fine_temperature=0.5
    )
    losses = Losses(config, ["a", "b"])
    frame_logits = torch.randn(4, 5)
    taught = [Labels(torch.full((4, 4), score), frame_logits, scale) for score, scale in ((0.5, 2.0), (0.25, 4.0))]
    given = labels(labels=taught, mask=None)
    losses(**given, student_scale=10.0)
    (student, first), (_, second), (frames, mask), _ = losses.own_coarse.function.__globals__["seen"]
    torch.testing.assert_close(student, given["student_logits"] / 10)
    assert (first.unique().item(), second.unique().item()) == (0.5, 0.25)
    torch.testing.assert_close(frames, frame_logits * 2)
    assert mask.all()
    assert mask.shape == (4, 5)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return student.sum(1)", r"returned a tensor of shape \[4\], not a tensor that is one number"),
        ("return student.sum().item()", "returned a float, not a tensor"),
        ("return None", "returned a NoneType, not a tensor"),
        ("return teacher.sum()", "does not depend on the student"),
        ("return student.sum() * float('nan')", "is not finite: nan"),
        ("return student @ teacher[:3]", r"failed\nRuntimeError: [^\n]*\n[^\n]*own_\w+\.py:2, in loss"),
    ],
)
def test_a_loss_that_fails_is_named_and_told_why(module, body: str, message: str) -> None:
    kind = f"{module(f'def loss(student, teacher):\n    {body}\n')}:loss"
    with pytest.raises(PluginError, match=f"^train.loss.coarse_kind: {kind} {message}"):
        Losses(LossConfig(coarse_kind=kind))(**labels())


def test_a_loss_that_becomes_infinite_later_is_told_too(module) -> None:
    name = module("def loss(raw, teacher, mask):\n    return raw.sum() / teacher.sum()\n")
    losses = Losses(LossConfig(fine_kind=f"{name}:loss"))
    losses(**labels())
    with pytest.raises(PluginError, match=r"is not finite: -?inf"):
        losses(**labels(labels=[Labels(torch.randn(4, 4), torch.zeros(4, 5), 1.0)]))


def test_a_loss_that_is_not_there_is_refused_before_training(module) -> None:
    name = module("number = 3\n")
    with pytest.raises(ConfigError, match=r"train.loss.coarse_kind: \w+:loss cannot be loaded\nAttributeError"):
        Losses(LossConfig(coarse_kind=f"{name}:loss"))
    with pytest.raises(ConfigError, match="is a int, neither a class nor a function"):
        loss_identity(LossConfig(fine_kind=f"{name}:number"))
    with pytest.raises(ConfigError, match="no entry point 'smooth' in teachclip"):
        Losses(LossConfig(fine_kind="entry:smooth"))


def test_an_installed_package_offers_a_loss(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = module("def loss(student, teacher):\n    return (student - teacher).abs().max()\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = importlib.metadata.EntryPoint("largest", f"{name}:loss", "teachclip.losses")
    monkeypatch.setattr(
        "teachclip.stages.runtime.plugins.entry_points", lambda group: [entry] if group == "teachclip.losses" else []
    )
    given = labels()
    parts = Losses(LossConfig(coarse_kind="entry:largest"))(**given)
    assert parts.coarse == (given["student_logits"] - given["labels"][0].logits).abs().max()


def test_the_source_of_a_loss_is_part_of_the_run(module, tmp_path: Path) -> None:
    name = module(example())
    config = LossConfig(coarse_kind=f"{name}:rows_kl", fine_kind=f"{name}:best_frame")
    identity = loss_identity(config)
    assert set(identity) == {"code of coarse_kind", "code of fine_kind"}
    assert loss_identity(config) == identity
    file = tmp_path / f"{name}.py"
    file.write_text(file.read_text().replace("softmax(1)", "softmax(0)", 1))
    assert set(loss_identity(config).values()).isdisjoint(identity.values())
    assert loss_identity(LossConfig()) == {}


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("pearsn", "'pearsn' is not one of pearson, huber, ce, module:function, entry:name; did you mean pearson?"),
        ("hubr", "did you mean huber?"),
        ("pearson:", "did you mean pearson?"),
        (":f", "'entry:name'"),
        ("a b:f", "entry:name"),
    ],
)
def test_a_mistyped_kind_is_no_loss_of_ones_own(kind: str, ending: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"train.loss.coarse_kind='{kind}'"])
    assert "train.loss.coarse_kind: " in str(caught.value)
    assert str(caught.value).endswith(ending.strip("'"))


@pytest.mark.parametrize("on", ["logits", "cosines"])
def test_what_a_teacher_teaches_is_the_same_to_the_last_bit_as_ever(module, on: str) -> None:
    """Cosines are logits divided by the scale again, and round so: a run that goes on keeps its numbers."""
    name = module("seen = []\ndef coarse(student, teacher):\n    seen.append(teacher)\n    return student.sum()\n")
    losses = Losses(LossConfig(coarse_kind=f"{name}:coarse", coarse_on=on))
    scores = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    losses(torch.zeros(64, 64, requires_grad=True), None, [Labels(scores, None, 100 / 3)])
    (found,) = losses.own_coarse.function.__globals__["seen"]
    logits = scores * (100 / 3)
    assert torch.equal(found, logits if on == "logits" else logits / (100 / 3))
    assert not torch.equal(logits / (100 / 3), scores)


def test_a_class_takes_options_and_its_parameters_train(module) -> None:
    """The page's third loss, against itself written out; its temperature gets a gradient."""
    name = module(example())
    losses = Losses(LossConfig(coarse_kind=f"{name}:Tempered", coarse_options={"start": 2.0}))
    given = labels()
    parts = losses(**given)
    target = (given["labels"][0].logits / 2).softmax(1)
    expected = -(target * given["student_logits"].log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(parts.coarse, expected)
    ((key, parameter),) = losses.named_parameters()
    assert key.endswith("log_temperature")
    parts.total.backward()
    assert parameter.grad is not None
    assert parameter.grad.abs() > 0


def test_a_function_takes_options_too(module) -> None:
    name = module("def loss(student, teacher, power=1):\n    return (student - teacher).abs().pow(power).mean()\n")
    losses = Losses(LossConfig(coarse_kind=f"{name}:loss", coarse_options={"power": 3}))
    given = labels()
    apart = (given["student_logits"] - given["labels"][0].logits).abs()
    torch.testing.assert_close(losses(**given).coarse, apart.pow(3).mean())
    assert list(losses.parameters()) == []


def test_options_that_do_not_fit(module) -> None:
    name = module(example())
    with pytest.raises(PluginError, match=r"Tempered: making it failed\nTypeError: [^\n]*argument 'depth'"):
        Losses(LossConfig(coarse_kind=f"{name}:Tempered", coarse_options={"depth": 1}))
    with pytest.raises(PluginError, match="unexpected keyword argument 'power'"):
        Losses(LossConfig(coarse_kind=f"{name}:rows_kl", coarse_options={"power": 1}))(**labels())
    mistake = LossConfig(fine_options={"start": 1}).mistake(())
    assert mistake == "train.loss.fine_options: options are for a loss of your own, and fine_kind is ce"
