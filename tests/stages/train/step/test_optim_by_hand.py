"""Updates, rates and clips beside their formulas, on a network of a few numbers."""

import math
from typing import Any

import pytest
import torch
from teachclip.configs.schema import OptimConfig
from teachclip.errors import ConfigError
from teachclip.stages.train.step.optimizer import (
    PUBLISHED_FROZEN,
    build_optimizer,
    freeze,
    parameter_groups,
    schedule,
)
from torch import nn

RATES = {"trunk": 0.02, "rest": 0.3, "afa": 0.05}


class Small(nn.Module):
    """The names of a network's parts, and little else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.ModuleDict({"ln": nn.LayerNorm(3), "proj": nn.Linear(3, 2)}).double()
        self.afa = nn.Linear(2, 2).double()
        self.head = nn.Linear(2, 1).double()
        self.unused = nn.Linear(1, 1).double()
        self.logit_scale = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


def config(optimiser: str, **changes: Any) -> OptimConfig:
    given = {"trunk_lr": RATES["trunk"], "lr": RATES["rest"], "afa_lr": RATES["afa"], "warmup": 0.25, "clip_norm": None}
    return OptimConfig.model_validate({"optimiser": optimiser, "weight_decay": 0.0, **given, **changes})


def part_of(name: str) -> str:
    return "trunk" if name.startswith("trunk.") else "afa" if name.startswith("afa.") else "rest"


def gradients(network: nn.Module, step: int) -> dict[str, torch.Tensor]:
    """Sets and returns them; `unused` has none."""
    generator = torch.Generator().manual_seed(step)
    given = {}
    for name, parameter in network.named_parameters():
        if not name.startswith("unused."):
            given[name] = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.grad = given[name].clone()
    return given


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("optimiser", ["bert-adam", "adamw", "adam"])
def test_three_steps(optimiser: str, decay: float) -> None:
    decay = 0.0 if optimiser == "adam" else decay
    network: Any = Small()
    settings = config(optimiser, weight_decay=decay)
    steps = build_optimizer(network, settings, 8)
    expected = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    mean = {name: torch.zeros_like(value) for name, value in expected.items()}
    square = {name: torch.zeros_like(value) for name, value in expected.items()}
    for step in range(3):
        factor = (step / 8) / 0.25 if optimiser == "bert-adam" else min(1.0, (step + 1) / 2)
        if step == 2:
            factor = 0.5 * (1 + math.cos(math.pi * (2 / 8 if optimiser == "bert-adam" else 0.0)))
        given = gradients(network, step)
        norm = steps.step()
        assert norm.item() == pytest.approx(math.sqrt(sum((g**2).sum().item() for g in given.values())))
        assert steps.lrs == pytest.approx({part: rate * factor for part, rate in RATES.items()})
        for name, gradient in given.items():
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = 0.98 * square[name] + 0.02 * gradient**2
            lr = RATES[part_of(name)] * factor
            spared = "bias" in name or (optimiser == "adamw" and expected[name].ndim < 2)
            if optimiser == "bert-adam":
                update = mean[name] / (square[name].sqrt() + 1e-6)
            else:
                unbiased = (square[name] / (1 - 0.98 ** (step + 1))).sqrt()
                update = mean[name] / (1 - 0.9 ** (step + 1)) / (unbiased + 1e-6)
            expected[name] = expected[name] - lr * (update + (0.0 if spared else decay) * expected[name])
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-9, atol=1e-12, msg=name)


def test_small_gradients_feel_the_epsilon() -> None:
    for optimiser in ("bert-adam", "adamw", "adam"):
        network: Any = Small()
        steps = build_optimizer(network, config(optimiser, warmup=0.0), 10)
        before = network.head.weight.detach().clone()
        network.head.weight.grad = torch.full_like(before, 1e-6)
        steps.step()
        moved = (before - network.head.weight.detach()) / steps.lrs["rest"]
        m, v = (0.1, 0.02) if optimiser == "bert-adam" else (1.0, 1.0)
        torch.testing.assert_close(moved, torch.full_like(moved, m * 1e-6 / (math.sqrt(v) * 1e-6 + 1e-6)))


def test_groups_say_part_rates_and_decay() -> None:
    groups = parameter_groups(Small(), config("bert-adam", weight_decay=0.1))
    assert all(group["lr"] == group["peak_lr"] == RATES[group["part"]] for group in groups)
    assert sorted((group["part"], group["weight_decay"], len(group["params"])) for group in groups) == [
        ("afa", 0.0, 1),
        ("afa", 0.1, 1),
        ("rest", 0.0, 2),
        ("rest", 0.1, 3),
        ("trunk", 0.0, 2),
        ("trunk", 0.1, 2),
    ]


def test_both_clips_and_the_norm_before_them() -> None:
    network: Any = Small()
    steps = build_optimizer(network, config("adamw", clip_norm=2.0, tensor_clip_norm=0.5), 10)
    given = gradients(network, 0)
    total = math.sqrt(sum((g**2).sum().item() for g in given.values()))
    assert steps.step().item() == pytest.approx(total)
    for name, parameter in network.named_parameters():
        if name in given:
            clipped = given[name] * min(1.0, 2.0 / (total + 1e-6))
            norm = clipped.norm().item()
            torch.testing.assert_close(parameter.grad, clipped * min(1.0, 0.5 / (norm + 1e-6)), rtol=1e-12, atol=0)
    steps.zero_grad()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_tensor_within_the_clip_is_left_alone_and_one_at_it_is_hardly_touched() -> None:
    network: Any = Small()
    steps = build_optimizer(network, config("adamw", tensor_clip_norm=0.5), 10)
    network.head.weight.grad = torch.tensor([[0.3, 0.4]], dtype=torch.float64)
    network.head.bias.grad = torch.tensor([0.49], dtype=torch.float64)
    steps.step()
    torch.testing.assert_close(network.head.weight.grad.norm().item(), 0.5 * 0.5 / (0.5 + 1e-6), rtol=1e-12, atol=0)
    assert network.head.bias.grad.item() == 0.49


@pytest.mark.parametrize(
    ("optimiser", "warmup", "step", "factor"),
    [
        ("adamw", 0.2, 0, 1 / 4),
        ("adamw", 0.2, 3, 1.0),
        ("adamw", 0.2, 4, 1.0),
        ("adamw", 0.2, 12, 0.5),
        ("adamw", 0.2, 16, 0.5 * (1 + math.cos(0.75 * math.pi))),
        ("adamw", 0.2, 20, 0.0),
        ("adamw", 0.2, 25, 0.0),
        ("adamw", 0.025, 0, 1.0),  # half a step of warm-up
        ("adam", 0.0, 0, 1.0),
        ("bert-adam", 0.2, 0, 0.0),
        ("bert-adam", 0.2, 3, 0.75),
        ("bert-adam", 0.2, 4, 0.5 * (1 + math.cos(0.2 * math.pi))),
        ("bert-adam", 0.0, 0, 1.0),
        ("bert-adam", 0.2, 25, 0.0),
    ],
)
def test_schedule(optimiser: str, warmup: float, step: int, factor: float) -> None:
    assert schedule(config(optimiser, warmup=warmup), step, 20) == pytest.approx(factor, abs=1e-12)


def test_freezing_is_by_the_beginning_of_the_name_and_only_as_published() -> None:
    class Named(nn.Module):
        def named_parameters(self, *arguments: Any, **options: Any) -> Any:
            return iter(self.given.items())

    names = [f"{name}weight" for name in PUBLISHED_FROZEN] + [f"head.{name}" for name in PUBLISHED_FROZEN] + ["trunk.x"]
    for rule in ("published", "none"):
        network: Any = Named()
        network.given = {name: torch.zeros(1, requires_grad=True) for name in names}
        freeze(network, config("adamw", freeze=rule))
        frozen = {name for name, parameter in network.given.items() if not parameter.requires_grad}
        assert frozen == (set(names[: len(PUBLISHED_FROZEN)]) if rule == "published" else set())


def test_the_state_is_the_steps_done_and_the_optimisers() -> None:
    network: Any = Small()
    steps = build_optimizer(network, config("bert-adam"), 8)
    for step in range(2):
        gradients(network, step)
        steps.step()
    state = steps.state_dict()
    assert state.keys() == {"done", "optimiser"}
    assert state["done"] == steps.done == 2
    again = build_optimizer(Small(), config("bert-adam"), 8)  # type: ignore[arg-type]
    again.load_state_dict(state)
    assert again.done == 2
    taken = again.state_dict()["optimiser"]
    assert taken["param_groups"] == state["optimiser"]["param_groups"]
    torch.testing.assert_close(taken["state"], state["optimiser"]["state"], rtol=0, atol=0)


def test_decay_asked_of_adam_is_refused_with_a_way_out() -> None:
    network: Any = Small()
    with pytest.raises(ConfigError, match=r"train\.optim\.weight_decay: Adam has no decoupled") as caught:
        build_optimizer(network, config("adam", weight_decay=0.1), 8)
    assert "adamw" in str(caught.value.hint)
