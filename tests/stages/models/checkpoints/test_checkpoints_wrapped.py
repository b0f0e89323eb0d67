"""Weights as training scripts leave them: recognised, or told with the prefix that is in the way."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from teachclip.configs.schema import TrunkConfig
from teachclip.errors import CheckpointError
from teachclip.stages.models.checkpoints.files import load_network, network_digest
from teachclip.stages.models.checkpoints.inspect import Refusal, inspect
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.models.clip.trunk import ClipTrunk
from teachclip.stages.models.weights.names import published_name, to_hugging_face

State = dict[str, torch.Tensor]
ADAM = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]}


def _prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def _inside(state: State, part: str) -> State:
    """The names that wrapping every block, and the whole, gives."""
    return {part + name.replace("resblocks.1.", f"resblocks.1.{part}"): value for name, value in state.items()}


def _lightning(state: State, prefix: str) -> dict[str, object]:
    return {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.5.0", "state_dict": _prefixed(state, prefix),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "optimizer_states": [ADAM], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-4},
    }  # fmt: skip


WRAPPED = {
    "torch.compile": lambda state: _prefixed(state, "_orig_mod."),
    "parts compiled": lambda state: {name.replace("clip.", "clip._orig_mod.", 1): v for name, v in state.items()},
    "DDP": lambda state: _prefixed(state, "module."),
    "DDP, compiled": lambda state: _prefixed(state, "module._orig_mod."),
    "compiled, DDP": lambda state: _prefixed(state, "_orig_mod.module."),
    "Lightning, model": lambda state: _lightning(state, "model."),
    "Lightning, net": lambda state: _lightning(state, "net."),
    "Lightning, network": lambda state: _lightning(state, "network."),
    "Lightning, compiled": lambda state: _lightning(state, "model._orig_mod."),
    "FSDP, full": lambda state: {"model": state, "optimizer": ADAM},
    "FSDP, wrapped names": lambda state: _inside(state, "_fsdp_wrapped_module."),
    "activation checkpointing": lambda state: _inside(state, "_checkpoint_wrapped_module."),
    "model": lambda state: {"model": state, "epoch": 3, "args": {"lr": 1e-4}},
    "net": lambda state: {"net": state, "acc": 0.5},
    "network": lambda state: {"network": state},
    "state_dict": lambda state: {"state_dict": state, "best": 0.3},
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": ADAM, "loss": 1.0},
    "DeepSpeed": lambda state: {"module": state, "ds_version": "0.16"},
    "dicts in dicts": lambda state: {"model": {"state_dict": _prefixed(state, "module.")}, "optimizer": ADAM},
    "a description under model": lambda state: {"model": {"name": "student"}, "net": state},
    "averaged beside it": lambda state: {"state_dict": state, "model": _prefixed(state, "module.")},
}


@pytest.fixture
def published(make_network):
    """`published(kind)`: a random network, and its tensors under published names."""

    def make(kind: str = "student") -> tuple[torch.nn.Module, State]:
        network = make_network(kind=kind, mask_padding=False, frames=12, words=16)
        state = {published_name(name): value for name, value in network.state_dict().items()}
        return network, to_hugging_face(state) if kind == "xpool" else state

    return make


@pytest.mark.parametrize("form", WRAPPED)
@pytest.mark.parametrize("kind", ["student", "xclip", "xpool"])
def test_a_wrapped_network_is_the_network(published, tmp_path, kind, form) -> None:
    network, state = published(kind)
    torch.save(WRAPPED[form](state), tmp_path / "n.pt")
    assert network_digest(load_network(tmp_path / "n.pt")) == network_digest(network)
    seen = inspect(tmp_path / "n.pt")
    assert (seen.kind, seen.refused) == (kind, None)
    assert form == "averaged beside it" or any("from" in line or "lie under" in line for line in seen.odd)


@pytest.mark.parametrize("form", WRAPPED)
def test_a_wrapped_trunk_is_the_trunk(sizes, tmp_path, form) -> None:
    torch.manual_seed(0)
    state = ClipTrunk(sizes).state_dict()
    torch.save(WRAPPED[form](state), tmp_path / "n.pt")
    loaded = build_trunk(TrunkConfig(sizes=sizes, weights=str(tmp_path / "n.pt")))
    assert all(value.equal(state[name]) for name, value in loaded.state_dict().items())
    seen = inspect(tmp_path / "n.pt")
    assert (seen.kind, seen.refused) == ("trunk", None)


def test_prefixes_are_taken_off_safetensors_too(published, tmp_path) -> None:
    network, state = published()
    save_file(_prefixed(state, "module._orig_mod."), tmp_path / "n.safetensors")
    assert network_digest(load_network(tmp_path / "n.safetensors")) == network_digest(network)
    assert inspect(tmp_path / "n.safetensors").odd[:2] == (
        "every name has `_orig_mod.` inside, from torch.compile",
        "every name starts with `module.`, from data-parallel training",
    )


def _refused(value: object, tmp_path: Path) -> str:
    """What loading says; `inspect` says the same, and calls it neither a network nor a trunk."""
    torch.save(value, tmp_path / "n.pt")
    with pytest.raises(CheckpointError) as refusal:
        load_network(tmp_path / "n.pt")
    try:
        refused = inspect(tmp_path / "n.pt")
    except CheckpointError as error:
        return str(error)
    assert (refused.kind, refused.refused is None) == (None, False)
    assert refused.refused == Refusal(refusal.value.what, refusal.value.details, refusal.value.hint)
    return str(refusal.value)


def test_a_prefix_that_nobody_could_know_is_named(published, tmp_path) -> None:
    _, state = published()
    everything = _prefixed(state, "my_student.")
    assert f"{len(state)} names with `my_student.` of {len(state)}" in _refused(everything, tmp_path)
    beside = _prefixed(state, "model.") | {"criterion.weight": torch.ones(3)}
    message = _refused({"state_dict": beside}, tmp_path)
    assert f"{len(state)} names with `model.` of {len(state) + 1}" in message
    assert "without the prefix" in message
    _, other = published("xpool")
    both = _prefixed(state, "student.") | _prefixed(other, "teacher.")
    message = _refused(both, tmp_path)
    assert "with `student.`" in message
    assert "with `teacher.`" in message
    with pytest.raises(CheckpointError, match="no state_dict"):
        build_trunk(TrunkConfig(weights=_saved({"criterion": 3}, tmp_path)))


def _saved(value: object, tmp_path: Path) -> str:
    torch.save(value, tmp_path / "n.pt")
    return str(tmp_path / "n.pt")


def test_of_two_clips_none_is_taken_at_a_venture(sizes, tmp_path) -> None:
    state = ClipTrunk(sizes).state_dict()
    both = _prefixed(state, "student.clip.") | _prefixed(state, "teacher.clip.")
    with pytest.raises(CheckpointError, match=r"2 CLIPs lie in this file[\s\S]*student\.clip\.[\s\S]*teacher\.clip\."):
        build_trunk(TrunkConfig(sizes=sizes, weights=_saved(both, tmp_path)))
    beside = _prefixed(state, "student.clip.") | {"head.weight": torch.ones(3)}
    build_trunk(TrunkConfig(sizes=sizes, weights=_saved(beside, tmp_path)))  # one is meant


def test_keys_that_nobody_could_know_are_named(published, tmp_path) -> None:
    _, state = published()
    assert "tensors lie under `ema`" in _refused({"ema": state, "epoch": 3}, tmp_path)
    assert "tensors lie under `best.weights`" in _refused({"best": {"weights": state, "at": 7}}, tmp_path)
    assert "tensors lie under `model` and `net`" in _refused({"model": state, "net": state}, tmp_path)
    assert "twice, with and without `_orig_mod.`" in _refused(state | _prefixed(state, "_orig_mod."), tmp_path)
    pieces = {"_flat_param": torch.ones(9), "clip._fsdp_wrapped_module._flat_param_0": torch.ones(9)}
    assert "FSDP's own pieces" in _refused(pieces, tmp_path)


def test_entries_among_the_tensors_that_are_none_are_named(published, tmp_path) -> None:
    _, state = published()
    mixed = state | {"epoch": 3, "scaler": None}
    said = f"among its {len(mixed)} entries are others than tensors: epoch (int), scaler (NoneType)"
    assert said in _refused(mixed, tmp_path)
    assert said in _refused({"model": mixed, "epoch": 3}, tmp_path)
    many = _refused(state | {str(number): number for number in range(5)}, tmp_path)
    assert "0 (int), 1 (int), 2 (int) and 2 more" in many


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin"])
def test_one_part_of_a_checkpoint_is_no_smaller_network(sizes, tmp_path, name) -> None:
    """Its last blocks may lie in the other part."""
    state = {key: value for key, value in ClipTrunk(sizes).state_dict().items() if "resblocks.1." not in key}
    save_file(state, tmp_path / name) if name.endswith("safetensors") else torch.save(state, tmp_path / name)
    said = rf"by its name this is part {int(name.split('-')[1])} of 2"
    for door in (inspect, load_network, lambda path: build_trunk(TrunkConfig(sizes=sizes, weights=str(path)))):
        with pytest.raises(CheckpointError, match=said):
            door(tmp_path / name)
    whole = (tmp_path / name).rename(tmp_path / name.replace("00002", "00001"))
    assert inspect(whole).kind == "trunk"


@pytest.mark.parametrize("part", ["image tower", "text tower", "first half", "second half", "a norm", "projection"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "encoder."])
def test_half_a_file_is_no_trunk(sizes, tmp_path, part, prefix) -> None:
    state = ClipTrunk(sizes).state_dict()
    names = list(state)
    left = {
        "image tower": [name for name in names if name.startswith("visual.")],
        "text tower": [name for name in names if not name.startswith("visual.")],
        "first half": names[: len(names) // 2],
        "second half": names[len(names) // 2 :],
        "a norm": [name for name in names if not name.startswith("visual.ln_post")],
        "projection": [name for name in names if name != "text_projection"],
    }[part]
    torch.save(_prefixed({name: state[name] for name in left}, prefix), tmp_path / "n.pt")
    seen = inspect(tmp_path / "n.pt")
    assert seen.kind is None
    assert seen.refused is not None
    assert "CLIP trunk," not in seen.title


def test_a_network_of_another_kind_is_no_trunk(sizes, tmp_path) -> None:
    """One with a CLIP in it, and a head of its own."""
    state = _prefixed(ClipTrunk(sizes).state_dict(), "encoder.") | {"head.weight": torch.ones(3, 4)}
    assert "`encoder.`" in _refused(state, tmp_path)


def test_nothing_in_a_wrapped_file_is_unpickled(published, tmp_path) -> None:
    _, state = published()

    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    for wrapped in (
        {"model": state, "args": Touch()},
        {"model": Touch()},
        _lightning(state, "model.") | {"h": Touch()},
    ):
        torch.save(wrapped, tmp_path / "n.pt", pickle_module=pickle)
        with pytest.raises(CheckpointError, match="more than tensors"):
            load_network(tmp_path / "n.pt")
    assert not (tmp_path / "ran").exists()
