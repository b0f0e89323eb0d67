"""TeachText's published checkpoints: `trained_model.pth` with `config.json` beside it (specs: experts 9).

The tensors do not tell which expert is which nor how many rows are taken of a sequence; `config.json` does. Everything
works on the meta device, where only names and shapes matter.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ....configs.schema import ExpertsConfig, NetworkConfig
from ....errors import CheckpointError
from ..weights.files import listed
from ..weights.names import StateDict

CONFIG = "config.json"
_DROPPED = ("ce.moe_fc_bottleneck1.", "ce.moe_cg.", "ce.moe_fc_proj.")  # of older code, read by nobody

_NETVLAD = {"centres": "clusters2", "norm.": "batch_norm.", "clusters": "clusters"}
_GATED = {"linear.": "fc.", "gate.linear.": "cg.fc.", "gate.norm.": "cg.batch_norm."}
_ALONE = {"linear.": "cg.fc.", "norm.": "cg.batch_norm."}
_AMONG = {"linear.": "cg.fc.", "norm.": "cg.batch_norm2.", "others_norm.": "cg.batch_norm."}


def is_published_experts(state: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of TeachText's code, under its names."""
    return any(name.startswith(("ce.moe_fc.", "ce.text_GU.")) for name in state)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration beside a checkpoint.

    Raises:
        CheckpointError: it is not there, or no JSON object.
    """
    beside = path.with_name(CONFIG)
    try:
        found = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"this is a checkpoint of TeachText's code, and {CONFIG} is not beside it",
            where=str(path),
            hint="it says which expert is which: put both files of the published model into one folder",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot be read as JSON: {error}", where=str(beside)) from None
    if not isinstance(found, dict):
        raise CheckpointError("is no JSON object", where=str(beside))
    return found


def network_config(state: Mapping[str, Tensor], said: Mapping[str, Any], where: str) -> NetworkConfig:
    """The network that a published checkpoint holds: options from its configuration, sizes from its tensors.

    Args:
        said: what its config.json holds.

    Raises:
        CheckpointError: what is missing, or of no use here; names it.
    """
    try:
        return _Reader(state, said).network()
    except _MissingError as error:
        raise CheckpointError(
            "this checkpoint and its config.json do not make a network", where=where, details=[str(error)]
        ) from None
    except ValidationError as error:
        details = [f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors()]
        raise CheckpointError("its sizes are those of no network", where=where, details=details) from None


class _MissingError(Exception):
    pass


class _Reader:
    """Takes a configuration out of config.json, and sizes out of the tensors."""

    def __init__(self, state: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
        self.state, self.said = state, said
        modalities = self._said("experts", "modalities")
        dropped = self._said("experts", "drop_feats", default="")
        if not isinstance(modalities, list) or not isinstance(dropped, str):
            raise _MissingError("config.json: experts.modalities is no list of names")
        names = {name for name in modalities if isinstance(name, str)} - set(dropped.split(","))
        self.names = sorted(names)

    def network(self) -> NetworkConfig:
        use = self._option("use_ce", default="")
        if use not in ("", "pairwise", False):
            raise _MissingError(f"config.json: arch.args.use_ce is {use!r}; only 'pairwise' and '' are known here")
        mimic = bool(self._option("mimic_ce_dims", default=False))
        if self._option("l2renorm", default=False):
            raise _MissingError("config.json: arch.args.l2renorm is set, with which the published code does not run")
        first = "ce.video_dim_reduce" if use or mimic else "ce.video_GU"
        clusters, centres = self._shape("text_pooling.clusters", 2), self._shape("text_pooling.clusters2", 3)
        settings: dict[str, Any] = {
            "modalities": {name: self._expert(k, name, first) for k, name in enumerate(self.names)},
            "text": {
                "width": clusters[0],
                "words": self._tokens("text"),
                "clusters": centres[2],
                "ghosts": clusters[1] - centres[2],
            },
            "fixed_weights": bool(self._option("freeze_weights", default=False)),
            "keep_missing": bool(self._option("keep_missing_modalities", default=False)),
        }
        if use or mimic:
            settings |= {"shared": self._shape("ce.video_dim_reduce.0.fc.weight", 2)[0], "gating": bool(use)}
        if use:
            if self._option("num_h_layers", default=0):
                raise _MissingError("config.json: arch.args.num_h_layers is not 0, which is not known here")
            settings |= {
                "include_self": bool(self._option("include_self")),
                "activation": "mish" if self._option("use_mish") else "relu",
                "pair_layers": self._option("num_g_layers"),
                "pair_norm": bool(self._option("use_bn_reason")),
            }
        kind = "ce" if use or mimic else "moee"
        return NetworkConfig.model_validate({"kind": kind, "frames": 1, "experts": settings})

    def _expert(self, number: int, name: str, first: str) -> dict[str, int]:
        entering = self._shape(f"{first}.{number}.fc.weight", 2)[1]
        if f"pooling.{name}.clusters" not in self.state:
            return {"width": entering}
        width, clusters = self._shape(f"pooling.{name}.clusters", 2)
        return {"width": width, "clusters": clusters, "tokens": self._tokens(name)}

    def _tokens(self, name: str) -> Any:
        return self._said("data_loader", "args", "max_tokens", name)

    def _option(self, name: str, **default: Any) -> Any:
        return self._said("arch", "args", name, **default)

    def _said(self, *keys: str, **default: Any) -> Any:
        found: Any = self.said
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                if "default" in default:
                    return default["default"]
                raise _MissingError(f"config.json: no {'.'.join(keys)}")
            found = found[key]
        return found

    def _shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        if name not in self.state or self.state[name].ndim != dimensions:
            raise _MissingError(f"no usable {name}")
        return tuple(self.state[name].shape)


def split_unused(state: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    """The tensors that the network has, and those that nothing reads."""
    unused = {name: value for name, value in state.items() if name.startswith(_DROPPED)}
    return {name: value for name, value in state.items() if name not in unused}, unused


def under_our_names(state: Mapping[str, Tensor], config: NetworkConfig, where: str) -> tuple[StateDict, dict[str, str]]:
    """The tensors under our names, and the published name of each; what has no name of ours keeps its own.

    Raises:
        CheckpointError: a name that is there twice.
    """
    tensors: StateDict = {}
    theirs: dict[str, str] = {}
    rules = list(_rules(config.kind, config.experts))
    for name, value in state.items():
        ours = next((own + name.removeprefix(their) for own, their in rules if name.startswith(their)), name)
        if ours in tensors:
            raise CheckpointError("tensors are there twice", where=where, details=listed("twice", [name]))
        tensors[ours], theirs[ours] = value, name
    return tensors, theirs


def published_expert_name(name: str, config: NetworkConfig) -> str:
    """What TeachText's code calls one of our tensors."""
    for own, their in _rules(config.kind, config.experts):
        if name.startswith(own):
            return their + name.removeprefix(own)
    raise ValueError(f"{name} has no published name")


def _rules(kind: str, experts: ExpertsConfig) -> Iterator[tuple[str, str]]:
    """Beginnings of names, ours and published; each is found by one rule alone."""
    names = sorted(experts.modalities)
    gating = kind == "ce" and experts.gating and len(names) > 1
    yield "mixture.", "ce.moe_fc."
    yield from _all("text_pooling.", "text_pooling.", _NETVLAD)
    for k, name in enumerate(names):
        yield from _all(f"poolings.{k}.", f"pooling.{name}.", _NETVLAD)
        yield from _all(f"text_units.{k}.", f"ce.text_GU.{k}.", _GATED)
        if kind == "moee":
            yield from _all(f"video_units.{k}.", f"ce.video_GU.{k}.", _GATED)
        else:
            yield f"reductions.{k}.", f"ce.video_dim_reduce.{k}.fc."
            yield from _all(f"gates.{k}.", f"ce.video_GU.{k}.", _AMONG if gating else _ALONE)
    yield "pairs.linears.0.", "ce.g_reason_1."
    step = 3 if experts.pair_norm else 2  # norm, activation, linear layer
    for k in range(experts.pair_layers - 1):
        yield f"pairs.norms.{k}.", f"ce.g_reason_shared.{step * k}."
        yield f"pairs.linears.{k + 1}.", f"ce.g_reason_shared.{step * k + step - 1}."


def _all(own: str, their: str, parts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for ours, theirs in parts.items():
        yield own + ours, their + theirs
