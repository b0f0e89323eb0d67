"""TeachText's `trained_model.pth` with `config.json` beside it: read, inspected, used, or refused."""

import json
import os
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from teachclip.configs.schema import NetworkConfig
from teachclip.errors import CheckpointError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import load_clip_network, load_network, network_digest
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.experts.published import published_expert_name

EXPERTS = {
    "modalities": {"audio": {"width": 6, "tokens": 4, "clusters": 2}, "rgb.senet.0": {"width": 7}},
    "text": {"width": 5, "words": 3, "clusters": 2, "ghosts": 1},
    "shared": 8,
}
SAID: dict[str, Any] = {
    "experts": {"modalities": ["rgb.senet.0", "face", "audio"], "drop_feats": "face,ocr", "ce_shared_dim": 8},
    "arch": {
        "type": "CENet",
        "args": {
            "use_ce": "pairwise",
            "use_mish": 1,
            "use_bn_reason": 1,
            "num_g_layers": 3,
            "num_h_layers": 0,
            "include_self": 1,
            "mimic_ce_dims": 0,
            "l2renorm": False,
            "keep_missing_modalities": False,
            "vlad_clusters": {"text": 2, "audio": 2},
        },
    },
    "data_loader": {"args": {"max_tokens": {"text": 3, "audio": 4}}},
}


def _network(kind: str = "ce", **changes: Any):
    torch.manual_seed(1)
    return build_network(NetworkConfig.model_validate({"kind": kind, "frames": 1, "experts": {**EXPERTS, **changes}}))


def _state(network) -> OrderedDict[str, torch.Tensor]:
    named = {published_expert_name(key, network.config): value for key, value in network.state_dict().items()}
    return OrderedDict(named)


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a checkpoint as TeachText's trainer does, its configuration an object of a module that is gone later."""

    def saved(
        state: dict[str, torch.Tensor], said: dict[str, Any] | None = SAID, holding: Any = None, legacy: bool = False
    ) -> Path:
        module = types.ModuleType("parse_config")

        class ConfigParser:
            def __init__(self) -> None:
                self.save_dir = tmp_path / "saved"
                self._config = OrderedDict(SAID)
                self.holding = holding

        ConfigParser.__module__, ConfigParser.__qualname__ = "parse_config", "ConfigParser"
        module.ConfigParser = ConfigParser
        path = tmp_path / "trained_model.pth"
        with monkeypatch.context() as while_saving:
            while_saving.setitem(sys.modules, "parse_config", module)
            content = {
                "arch": "CENet",
                "epoch": 3,
                "state_dict": state,
                "monitor_best": 1.5,
                "config": ConfigParser(),
                "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict(),
            }
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        if said is not None:
            (tmp_path / "config.json").write_text(json.dumps(said))
        return path

    return saved


@pytest.mark.parametrize("legacy", [False, True])
def test_a_published_checkpoint_is_the_network(save, legacy: bool) -> None:
    network = _network()
    path = save(_state(network), legacy=legacy)
    loaded = load_network(path)
    assert "parse_config" not in sys.modules
    assert loaded.config.experts == network.config.experts
    assert network_digest(loaded) == network_digest(network)
    assert {key: value.dtype for key, value in loaded.state_dict().items()} == {
        key: value.dtype for key, value in network.state_dict().items()
    }


def test_names_of_data_parallel_training(save) -> None:
    network = _network()
    path = save({f"module.{key}": value for key, value in _state(network).items()})
    assert network_digest(load_network(path)) == network_digest(network)


def test_moee(save) -> None:
    network = _network("moee")
    said = json.loads(json.dumps(SAID))
    said["arch"]["args"] |= {"use_ce": "", "num_h_layers": 1, "num_g_layers": 1, "include_self": 0}
    found = inspect(save(_state(network), said))
    assert found.refused is None
    assert (found.kind, found.title) == ("moee", "TeachText's MoEE on 2 experts")
    assert found.digest == network_digest(network)


def test_tensors_of_older_code_are_left_out(save) -> None:
    network = _network()
    state = _state(network)
    state["ce.moe_fc_proj.weight"] = torch.ones(2, 3)
    found = inspect(save(state))
    assert found.digest == network_digest(network)
    assert any("1 tensor is not used and left out: ce.moe_fc_proj.weight" in each for each in found.odd)


def test_inspect_says_what_it_is(save) -> None:
    found = inspect(save(_state(_network())))
    assert (found.kind, found.title, found.refused) == ("ce", "TeachText's CE on 2 experts", None)
    assert found.sizes["experts"] == 2
    assert found.sizes["text_words"] == 3
    assert found.settings["audio"] == "6 numbers, 4 rows in 2 clusters"
    assert found.logit_scale is None
    assert "state_dict" in found.odd[0]


def test_ours_and_back(save, tmp_path: Path) -> None:
    path = save(_state(_network()))
    done = convert(path, tmp_path / "ours.safetensors")
    assert done.digest == inspect(tmp_path / "ours.safetensors").digest
    with pytest.raises(CheckpointError, match=r"config\.json"):
        convert(tmp_path / "ours.safetensors", tmp_path / "theirs.bin", names="published")


def test_without_config_json(save) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is not beside it") as refusal:
        load_network(save(_state(_network()), said=None))
    assert "trained_model.pth" in str(refusal.value.where)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_loader": {}}, "config.json: no data_loader.args.max_tokens.audio"),
        ({"experts": {"modalities": "audio"}}, "experts.modalities is no list of names"),
        ({"experts": {"modalities": ["audio", "x", "y"]}}, "no usable ce.video_dim_reduce.2.fc.weight"),
        ({"arch": {"args": {**SAID["arch"]["args"], "use_ce": "triplet"}}}, "arch.args.use_ce is 'triplet'"),
        ({"arch": {"args": {**SAID["arch"]["args"], "num_h_layers": 1}}}, "arch.args.num_h_layers is not 0"),
        ({"arch": {"args": {**SAID["arch"]["args"], "l2renorm": True}}}, "arch.args.l2renorm is set"),
        ({"arch": {"args": {"use_ce": "pairwise"}}}, "config.json: no arch.args.include_self"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(save, change: dict[str, Any], told: str) -> None:
    path = save(_state(_network()), {**SAID, **change})
    with pytest.raises(CheckpointError) as refusal:
        load_network(path)
    assert told in str(refusal.value)
    assert inspect(path).refused is not None


def test_tensors_that_do_not_fit_are_named_as_the_file_names_them(save) -> None:
    state = _state(_network())
    del state["ce.video_GU.1.cg.batch_norm2.weight"]
    state["ce.h_reason_shared.0.weight"] = torch.ones(3)
    state["ce.text_GU.0.fc.weight"] = torch.ones(3, 3)
    with pytest.raises(CheckpointError) as refusal:
        load_network(save(state))
    message = str(refusal.value)
    for name in (
        "ce.video_GU.1.cg.batch_norm2.weight",
        "ce.h_reason_shared.0.weight",
        "ce.text_GU.0.fc.weight: (3, 3)",
    ):
        assert name in message


@pytest.mark.parametrize("content", ["[1]", "{", "\xff"])
def test_a_config_json_that_is_none(save, tmp_path: Path, content: str) -> None:
    path = save(_state(_network()))
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError) as refusal:
        load_network(path)
    assert "config.json" in str(refusal.value)


class _Runs:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (_write, (str(self.marker),))


def _write(path: str) -> None:
    Path(path).write_text("run")


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_in_the_configuration_runs(save, tmp_path: Path, legacy: bool) -> None:
    marker = tmp_path / "marker"
    network = _network()
    path = save(_state(network), holding=_Runs(marker), legacy=legacy)
    assert network_digest(load_network(path)) == network_digest(network)
    assert not marker.exists()


class _System:
    def __reduce__(self):
        return (os.system, ("true",))


def test_what_asks_for_the_system_is_refused(save) -> None:
    with pytest.raises(CheckpointError, match="could run code"):
        load_network(save(_state(_network()), holding=_System()))


def test_other_files_with_objects_are_refused_as_ever(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "other.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}, "config": _Runs(marker)}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        load_network(path)
    assert not marker.exists()


def test_what_looks_at_frames_refuses_it(save) -> None:
    with pytest.raises(CheckpointError, match="no frames"):
        load_clip_network(save(_state(_network())))
