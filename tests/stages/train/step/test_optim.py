"""Groups, schedules, clips, freezing, and going on from a saved state."""

import itertools
import math

import pytest
import torch
from teachclip.configs.schema import NetworkConfig, OptimConfig, TrunkConfig, TrunkSizes
from teachclip.errors import ConfigError
from teachclip.stages.models.build import build_network
from teachclip.stages.train.step.optimizer import build_optimizer, parameter_groups, schedule
from teachclip.stages.train.step.speed import prepare_for_speed

SIZES = TrunkSizes(
    image_size=16,
    patch_size=8,
    vision_width=64,
    vision_layers=1,
    text_width=64,
    text_layers=1,
    embed_dim=64,
    context_length=8,
    vocab_size=50,
)
OPTIMISERS = ("adamw", "adam", "bert-adam")


def _network(seed: int = 0, **settings):
    torch.manual_seed(seed)
    config = NetworkConfig(
        trunk=TrunkConfig(sizes=SIZES, weights=None), words=8, frames=3, temporal_layers=1, **settings
    )
    return build_network(config)


def _config(optimiser: str = "adamw", **changes) -> OptimConfig:
    decay = {"weight_decay": 0.0} if optimiser == "adam" else {}
    return OptimConfig(optimiser=optimiser, **(decay | changes))


def _backward(network, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(5)
    loss = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in network.parameters())
    (size * loss).backward()


def _weights(network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("kind", ["student", "xclip"])
def test_every_trained_parameter_is_in_exactly_one_group(kind) -> None:
    network = _network(kind=kind)
    config = _config(freeze="none")
    groups = parameter_groups(network, config)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    rates = {id(p): group["peak_lr"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        part = "trunk_lr" if name.startswith("trunk.") else "afa_lr" if name.startswith("afa.") else "lr"
        assert rates[id(parameter)] == getattr(config, part), name


def test_adamw_spares_biases_norms_and_the_logit_scale_from_decay() -> None:
    network = _network()
    decayed = {id(p) for g in parameter_groups(network, _config()) if g["weight_decay"] for p in g["params"]}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim >= 2), name


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_frozen_parameters_do_not_move_and_the_others_do(optimiser) -> None:
    network = _network()
    network.freeze_class_tokens()
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    steps = build_optimizer(network, _config(optimiser, trunk_lr=1e-2), 10)
    for _ in range(3):
        steps.zero_grad()
        _backward(network)
        steps.step()
    still = {name for name, p in network.named_parameters() if p.equal(start[name])}
    assert still == {name for name, p in network.named_parameters() if not p.requires_grad}
    assert {"trunk.token_embedding.weight", "trunk.visual.conv1.weight", "trunk.positional_embedding"} <= still
    assert "trunk.visual.proj" not in still


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("channels_last", [False, True])  # of the network that goes on: the same numbers, other places
def test_going_on_from_a_saved_state_is_the_same_as_not_stopping(optimiser, channels_last, tmp_path) -> None:
    config = _config(optimiser, trunk_lr=1e-3, freeze="none")
    whole = _network()
    steps = build_optimizer(whole, config, 8)
    for step in range(6):
        if step == 3:
            torch.save((whole.state_dict(), steps.state_dict()), tmp_path / "state")
        steps.zero_grad()
        _backward(whole, step + 1)
        steps.step()
    weights, state = torch.load(tmp_path / "state", weights_only=True)
    other = _network(seed=1)
    prepare_for_speed(other, channels_last=channels_last)
    other.load_state_dict(weights)
    again = build_optimizer(other, config, 8)
    again.load_state_dict(state)
    for step in range(3, 6):
        again.zero_grad()
        _backward(other, step + 1)
        again.step()
    assert again.lrs == steps.lrs
    assert _weights(other).equal(_weights(whole))


def test_the_published_schedule_starts_at_zero_and_drops_after_the_warm_up() -> None:
    factors = [schedule(_config("bert-adam"), step, 100) for step in range(100)]
    assert factors[0] == 0
    assert factors[9] == pytest.approx(0.9)
    assert factors[10] == pytest.approx(0.5 * (1 + math.cos(0.1 * math.pi)))
    assert factors[50] == pytest.approx(0.5)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_our_schedule_wastes_no_step_and_has_no_jump(warmup, total) -> None:
    factors = [schedule(_config(warmup=warmup), step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) > 0.9 or total < 10
    if total == 100:
        assert max(abs(a - b) for a, b in itertools.pairwise(factors)) <= 0.1 + 1e-9
        assert factors[-1] < 0.01
        peak = factors.index(max(factors))
        assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("size", [1e-3, 1e3])
def test_gradients_are_clipped_together(size) -> None:
    """The norm that is returned is the one before the clip."""
    network = _network()
    steps = build_optimizer(network, _config(clip_norm=1.0), 10)
    _backward(network, size)
    trained = [p for p in network.parameters() if p.requires_grad]
    before = torch.cat([p.grad.flatten() for p in trained])
    norm = steps.step()
    after = torch.cat([p.grad.flatten() for p in trained])
    assert norm.item() == pytest.approx(before.norm().item(), rel=1e-5)
    torch.testing.assert_close(after, before * min(1.0, 1.0 / before.norm().item()), rtol=1e-4, atol=1e-9)


def test_gradients_of_each_tensor_are_clipped_where_asked() -> None:
    network = _network()
    steps = build_optimizer(network, _config(clip_norm=None, tensor_clip_norm=0.5), 10)
    _backward(network, 10)
    norm = steps.step()
    assert norm > 10
    norms = [p.grad.norm().item() for p in network.parameters() if p.requires_grad]
    assert max(norms) == pytest.approx(0.5, rel=1e-4)
    assert len({round(value, 4) for value in norms}) == 1


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_logit_scale_stays_at_most_ln_100(optimiser) -> None:
    network = _network()
    with torch.no_grad():
        network.logit_scale.fill_(math.log(100) - 1e-4)
    steps = build_optimizer(network, _config(optimiser, trunk_lr=0.1), 10)
    for _ in range(3):
        steps.zero_grad()
        (-network.logit_scale * 100).backward()
        steps.step()
    assert network.logit_scale.item() == pytest.approx(math.log(100), abs=1e-6)


def test_adam_with_weight_decay_is_refused() -> None:
    with pytest.raises(ConfigError, match="weight_decay"):
        build_optimizer(_network(), OptimConfig(optimiser="adam", weight_decay=0.2), 10)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_optimiser_learns(optimiser) -> None:
    """A few steps fit a batch of random pairs."""
    torch.manual_seed(0)
    network = _network(pooling="mean")
    pixels, mask = torch.randn(6, 3, 3, 16, 16), torch.ones(6, 3, dtype=torch.bool)
    ids = torch.randint(1, 48, (6, 8))
    ids[:, 6:] = torch.tensor([49, 0])
    steps = build_optimizer(network, _config(optimiser, lr=3e-3, trunk_lr=3e-3, freeze="none"), 40)
    losses = []
    for _ in range(40):
        logits = network.score(network.encode_texts(ids), network.encode_videos(pixels, mask)) * 20
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(6))
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
