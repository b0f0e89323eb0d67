"""Optimisers, parameter groups, freezing and schedule (specs: TeachCLIP 5, experts 7)."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ....configs.schema import OptimConfig
from ....errors import ConfigError
from ....remedies import Change, Remedy
from ...models.common.network import RetrievalNetwork

MAX_LOGIT_SCALE = math.log(100.0)
BETAS = (0.9, 0.98)  # of AdamW, Adam and BertAdam; CLIP's and the published code's
EPS = 1e-6
RADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "decoupled_weight_decay": True}  # specs: experts 7
RANGER = {**RADAM, "betas": (0.95, 0.999), "eps": 1e-5}
LOOKAHEAD_STEPS, LOOKAHEAD = 6, 0.5
CLIP_EPS = 1e-6  # torch's, in the divisor of a gradient clip
# What the published code never trains, of our names.
PUBLISHED_FROZEN = (
    "trunk.visual.conv1.",
    "trunk.visual.class_embedding",
    "trunk.visual.positional_embedding",
    "trunk.visual.ln_pre.",
    "trunk.token_embedding.",
    "trunk.positional_embedding",
    "trunk.text.token_embedding.",  # as other trunks call these two
    "trunk.text.positional_embedding",
)

ParameterPart = Literal["trunk", "rest", "afa", "loss"]


class BertAdam(torch.optim.Optimizer):
    """CLIP4Clip's Adam: no bias correction, decoupled decay inside the step.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p = p - lr (m / (sqrt(v) + eps) + weight_decay p)
    """

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
                    self.state[parameter]["exp_avg_sq"] = torch.zeros_like(parameter)
            mean = [self.state[parameter]["exp_avg"] for parameter in parameters]
            square = [self.state[parameter]["exp_avg_sq"] for parameter in parameters]
            torch._foreach_lerp_(mean, gradients, 1 - BETAS[0])
            torch._foreach_mul_(square, BETAS[1])
            torch._foreach_addcmul_(square, gradients, gradients, 1 - BETAS[1])
            divisor = torch._foreach_sqrt(square)
            torch._foreach_add_(divisor, EPS)
            update = torch._foreach_div(mean, divisor)
            if group["weight_decay"]:
                torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
            torch._foreach_add_(parameters, update, alpha=-group["lr"])


class Ranger(torch.optim.RAdam):
    """RAdam with lookahead (specs: experts 7): every sixth step the parameters go half the way back to where slow
    ones stand, which follow them there."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, **RANGER)  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        new = {p: p.detach().clone() for p in parameters if not self.state[p]}
        super().step()
        for parameter in parameters:
            state = self.state[parameter]
            if parameter in new:
                state["slow"] = new[parameter]
            if int(state["step"]) % LOOKAHEAD_STEPS == 0:
                state["slow"].lerp_(parameter, LOOKAHEAD)
                parameter.copy_(state["slow"])


class ScheduledOptimizer:
    """An optimiser over a network's groups, with its schedule and its gradient clips.

    Args:
        epoch_steps: steps of an epoch, for the schedule `per-epoch`.

    Attributes:
        lrs: learning rates of the last step, per part of the network (trunk, rest, afa), and of a loss that has
            parameters.
    """

    def __init__(
        self,
        network: RetrievalNetwork,
        config: OptimConfig,
        total_steps: int,
        epoch_steps: int | None = None,
        losses: nn.Module | None = None,
    ) -> None:
        if config.optimiser == "adam" and config.weight_decay:
            raise ConfigError(
                "train.optim.weight_decay: Adam has no decoupled weight decay",
                hint=Remedy(
                    "take AdamW",
                    Change({"train.optim.optimiser": "adamw"}),
                    otherwise=Remedy("go without decay", Change({"train.optim.weight_decay": 0})),
                ),
            )
        freeze(network, config)
        self.config, self.total_steps, self.done = config, total_steps, 0
        self.epoch_steps = epoch_steps or total_steps
        self._logit_scale = network.logit_scale
        groups = parameter_groups(network, config)
        if own := [parameter for parameter in losses.parameters() if parameter.requires_grad] if losses else []:
            groups.append({"params": own, "part": "loss", "peak_lr": config.lr, "lr": config.lr, "weight_decay": 0.0})
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimiser = _optimiser(config, groups)
        self.lrs: dict[str, float] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimiser.zero_grad(set_to_none=True)

    def step(self) -> Tensor:
        """Clip, update, keep the logit scale at most ln 100; returns the gradients' norm before the clip, a scalar."""
        factor = schedule(self.config, self.done, self.total_steps, self.epoch_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
            self.lrs[group["part"]] = group["lr"]
        norm = self._clip()
        self._optimiser.step()
        with torch.no_grad():
            self._logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        self.done += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the optimiser's state: dicts, lists, tensors and plain numbers."""
        return {"done": self.done, "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.done = int(state["done"])
        self._optimiser.load_state_dict(state["optimiser"])
        for parameter, moments in self._optimiser.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:  # torch's fused kernels pair elements by their places in memory
                    moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

    def _clip(self) -> Tensor:
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self._parameters, self.config.clip_norm, norm)
        if self.config.tensor_clip_norm is not None:
            norms = torch.stack(torch._foreach_norm(gradients))
            factors = (self.config.tensor_clip_norm / (norms + CLIP_EPS)).clamp(max=1.0)
            torch._foreach_mul_(gradients, list(factors.unbind()))
        return norm


def build_optimizer(
    network: RetrievalNetwork,
    config: OptimConfig,
    total_steps: int,
    epoch_steps: int | None = None,
    losses: nn.Module | None = None,
) -> ScheduledOptimizer:
    """Freeze what `config.freeze` says and make the optimiser of the rest, for a run of `total_steps`.

    Parameters of `losses` train at `config.lr`, without decay.

    Args:
        epoch_steps: see `ScheduledOptimizer`; by default the run is one epoch.

    Raises:
        ConfigError: weight decay asked of Adam.
    """
    return ScheduledOptimizer(network, config, total_steps, epoch_steps, losses)


def freeze(network: nn.Module, config: OptimConfig) -> None:
    """Stop training patch convolution, embeddings and `ln_pre` of the trunk, for `published`."""
    if config.freeze == "published":
        for name, parameter in network.named_parameters():
            if name.startswith(PUBLISHED_FROZEN):
                parameter.requires_grad_(False)


def parameter_groups(network: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Parameters that train, by part of the network (trunk, rest, afa) and with or without weight decay.

    The published code spares the biases from decay; AdamW here also LayerNorms, class embedding and logit scale; RAdam
    and Ranger spare nothing, as TeachText's do.
    """
    everything = config.optimiser in ("radam", "ranger")
    peaks: dict[ParameterPart, float] = {"trunk": config.trunk_lr, "rest": config.lr, "afa": config.afa_lr}
    groups: dict[tuple[ParameterPart, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            spared = not everything and ("bias" in name or (config.optimiser == "adamw" and parameter.ndim < 2))
            groups.setdefault((_part(name), not spared), []).append(parameter)
    return [
        {
            "params": parameters,
            "part": part,
            "peak_lr": peaks[part],
            "lr": peaks[part],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def schedule(config: OptimConfig, step: int, total_steps: int, epoch_steps: int = 1) -> float:
    """Factor on the learning rates at `step`, from 0: linear warm-up, then half a cosine.

    `per-epoch`: `epoch_factor` after each epoch of `epoch_steps`, and no warm-up.

    `bert-adam` as published: the first step has rate 0, and the cosine starts at step 0, so that the rate drops where
    the warm-up ends. The others warm up from 1 / warm-up steps, and the cosine starts where the warm-up ends.
    """
    if config.schedule == "per-epoch":
        return config.epoch_factor ** (step // epoch_steps)
    if config.optimiser == "bert-adam":
        progress = step / total_steps
        return progress / config.warmup if progress < config.warmup else _cosine(progress)
    warmup = config.warmup * total_steps
    if step < warmup:
        return min(1.0, (step + 1) / warmup)
    return _cosine((step - warmup) / (total_steps - warmup))


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _part(name: str) -> ParameterPart:
    if name.startswith("trunk."):
        return "trunk"
    return "afa" if name.startswith("afa.") else "rest"


def _optimiser(config: OptimConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if config.optimiser == "bert-adam":
        return BertAdam(groups)
    if config.optimiser == "ranger":
        return Ranger(groups)
    if config.optimiser == "radam":
        return torch.optim.RAdam(groups, **RADAM)  # type: ignore[arg-type]
    if config.optimiser == "adam":
        return torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=True)
    return torch.optim.AdamW(groups, betas=BETAS, eps=EPS, fused=True)
