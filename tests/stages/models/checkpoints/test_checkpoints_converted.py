"""What `inspect` says of files, and what `convert` writes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from teachclip.errors import CheckpointError
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import from_published, load_network, network_digest, save_network
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.clip.trunk import CLIP_NOTES, ClipTrunk
from teachclip.stages.models.weights.names import published_name, to_hugging_face
from teachclip.stages.runtime.reporting import Silent

State = dict[str, torch.Tensor]
SETTINGS = {
    "student": {},
    "mean": {"kind": "student", "pooling": "mean"},
    "xclip": {},
    "ts2net": {"ts2net": {"shift_layers": (0, 1)}},
    "xpool": {},
    "drl": {"drl": {"layers": 3}},
}


class _Told(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def grid(sizes):
    """Large enough for TS2-Net's token shift: 16 patches."""
    return sizes.model_copy(update={"patch_size": 8})


@pytest.fixture
def theirs(make_network, grid):
    """`theirs("xclip", **settings)`: a network, and its tensors under published names."""

    def make(name: str, **settings: object) -> tuple[torch.nn.Module, State]:
        settings = {"kind": name, "sizes": grid, "mask_padding": False} | SETTINGS[name] | settings
        network = make_network(**settings)
        layers = network.config.ts2net.shift_layers if network.config.kind == "ts2net" else ()
        state = {published_name(key, layers): value for key, value in network.state_dict().items()}
        return network, to_hugging_face(state) if name == "xpool" else state

    return make


TITLES = {
    "student": "TeachCLIP student",
    "mean": "CLIP4Clip",
    "xclip": "X-CLIP",
    "ts2net": "TS2-Net with token shift in blocks 0, 1",
    "xpool": "X-Pool",
    "drl": "DRL with weight networks of 3 layers",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_is_told_and_comes_back(theirs, tmp_path, name) -> None:
    network, state = theirs(name)
    torch.save(state, tmp_path / "n.bin")
    seen = inspect(tmp_path / "n.bin")
    assert (seen.title, seen.kind, seen.format) == (TITLES[name], network.config.kind, "torch")
    assert seen.refused is None
    assert seen.digest == network_digest(from_published(state))
    assert (seen.sizes["image_size"], seen.sizes["patch_size"], seen.sizes["embed_dim"]) == (32, 8, 64)
    assert (seen.sizes["vision_heads"], seen.sizes["text_heads"], seen.sizes["vocab_size"]) == (2, 1, 300)
    assert seen.sizes["temporal_layers"] == (0 if name == "xpool" else 2)
    assert seen.assumed == (() if name == "xclip" else ("frames", "words"))
    assert seen.parameters == sum(value.numel() for value in network.parameters())
    assert seen.logit_scale == pytest.approx(network.logit_scale.item())
    assert seen.scale == pytest.approx(network.logit_scale.exp().item())
    done = convert(tmp_path / "n.bin", tmp_path / "ours.safetensors", frames=5, words=10)
    ours = inspect(tmp_path / "ours.safetensors")
    assert done.digest == ours.digest == network_digest(network)
    assert ours.assumed == ()
    assert (ours.sizes["frames"], ours.sizes["words"]) == (5, 10)
    loaded = load_network(tmp_path / "ours.safetensors")
    assert loaded.config == network.config
    convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors", names="published")
    back = load_file(tmp_path / "again.safetensors")
    assert {key: (value.shape, value.dtype) for key, value in back.items()} == {
        key: (value.shape, value.dtype) for key, value in state.items()
    }
    assert all(back[key].equal(value) for key, value in state.items())


def test_the_two_forms_of_ts2net_are_told_apart(theirs, tmp_path) -> None:
    _, shifted = theirs("ts2net")
    _, plain = theirs("ts2net", ts2net={"shift_layers": ()})
    torch.save(shifted, tmp_path / "shifted.bin")
    torch.save(plain, tmp_path / "plain.bin")
    assert any("the authors have it in 10 and 11" in line for line in inspect(tmp_path / "shifted.bin").odd)
    seen = inspect(tmp_path / "plain.bin")
    assert seen.title == "TS2-Net without token shift, as TeachCLIP runs it"
    assert seen.settings["shift_layers"] == ()
    trunk = {name.removeprefix("clip."): value for name, value in plain.items() if name.startswith("clip.")}
    torch.save(trunk, tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="only a TS2-Net with token shift"):
        convert(tmp_path / "plain.bin", tmp_path / "o.safetensors", clip=tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        convert(tmp_path / "shifted.bin", tmp_path / "o.safetensors", clip=tmp_path / "absent.pt")
    as_run = convert(tmp_path / "shifted.bin", tmp_path / "o.safetensors", clip=tmp_path / "clip.pt")
    assert as_run.title == seen.title
    source = inspect(tmp_path / "o.safetensors").source
    assert source["title"].startswith("TS2-Net with token shift")
    assert (source["file"], source["clip"]["file"]) == ("shifted.bin", "clip.pt")


def test_the_source_is_kept_in_what_is_written(theirs, tmp_path) -> None:
    _, state = theirs("xclip")
    torch.save(state, tmp_path / "n.bin")
    convert(tmp_path / "n.bin", tmp_path / "o.safetensors")
    with safe_open(tmp_path / "o.safetensors", framework="pt") as file:
        source = json.loads(file.metadata()["teachclip"])["source"]
    assert source == {"title": "X-CLIP", "file": "n.bin", "sha256": inspect(tmp_path / "n.bin").sha256}
    assert inspect(tmp_path / "o.safetensors").source == source


def test_what_is_odd_is_said(theirs, tmp_path) -> None:
    _, state = theirs("student")
    state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    state |= {"cross.pooler.weight": torch.ones(2), "clip.input_resolution": torch.tensor(32)}
    state["clip.logit_scale"] = torch.tensor([4.7])
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}, "optimizer": {}}
    torch.save(wrapped, tmp_path / "n.pth")
    odd = "\n".join(inspect(tmp_path / "n.pth").odd)
    for part in (
        "under `state_dict`, beside epoch, optimizer",
        "`module.`",
        "tensors in float16",
        "2 tensors are not used and left out: cross.pooler.weight, clip.input_resolution",
        "12 frames and 16 words are assumed",
        "logit scale 4.7000 is above ln 100",
        "300 tokens",
    ):
        assert part in odd


def test_half_precision_is_widened_and_unused_tensors_come_back(theirs, tmp_path) -> None:
    _, state = theirs("student")
    halves = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    halves |= {"similarity_dense.bias": torch.ones(1), "clip.logit_scale": torch.tensor([2.5])}
    torch.save(halves, tmp_path / "n.bin")
    done = convert(tmp_path / "n.bin", tmp_path / "o.safetensors")
    assert (done.kept, done.tensors) == (1, len(halves))
    assert network_digest(load_network(tmp_path / "o.safetensors")) == network_digest(from_published(halves))
    convert(tmp_path / "o.safetensors", tmp_path / "n2.bin", names="published")
    back = torch.load(tmp_path / "n2.bin", weights_only=True)
    assert back.keys() == halves.keys()
    assert all(back[name].dtype == torch.float32 and back[name].equal(value.float()) for name, value in halves.items())
    assert all(back[name].shape == value.shape for name, value in halves.items())


def test_a_student_converted_to_mean_pooling_keeps_its_afa_aside(theirs, tmp_path) -> None:
    _, state = theirs("student")
    torch.save(state, tmp_path / "n.bin")
    convert(tmp_path / "n.bin", tmp_path / "o.safetensors", pooling="mean")
    assert load_network(tmp_path / "o.safetensors").config.pooling == "mean"
    with pytest.raises(CheckpointError, match="pools with mean, and afa"):
        convert(tmp_path / "o.safetensors", tmp_path / "b.bin", names="published", pooling="afa")
    done = convert(tmp_path / "o.safetensors", tmp_path / "b.bin", names="published")
    assert done.changed == ()
    assert torch.load(tmp_path / "b.bin", weights_only=True).keys() == state.keys()


def test_nothing_is_replaced_unless_forced(theirs, make_network, tmp_path) -> None:
    _, state = theirs("xclip")
    torch.save(state, tmp_path / "n.bin")
    out = tmp_path / "o.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(CheckpointError, match="such a file already"):
        convert(tmp_path / "n.bin", out)
    assert out.read_bytes() == b"precious"
    convert(tmp_path / "n.bin", out, force=True)
    assert inspect(out).kind == "xclip"
    with pytest.raises(CheckpointError, match="teachclip's names already"):
        convert(out, tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="this is a folder"):
        convert(tmp_path / "n.bin", tmp_path)
    with pytest.raises(CheckpointError, match="safetensors"):
        convert(tmp_path / "n.bin", tmp_path / "p.bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.bin", "o.safetensors"]


def test_a_write_that_fails_leaves_nothing(theirs, tmp_path, monkeypatch) -> None:
    _, state = theirs("xclip")
    torch.save(state, tmp_path / "n.bin")

    def fail(_state: State, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("teachclip.stages.models.checkpoints.files.save_file", fail)
    with pytest.raises(OSError, match="No space"):
        convert(tmp_path / "n.bin", tmp_path / "o.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["n.bin"]


def test_settings_that_published_names_cannot_carry_are_said(make_network, sizes, tmp_path) -> None:
    heads = sizes.model_copy(update={"vision_heads": 4, "quick_gelu": False})
    save_network(make_network(sizes=heads, pool_temperature=1.0, words=9), tmp_path / "n.safetensors")
    told = _Told()
    done = convert(tmp_path / "n.safetensors", tmp_path / "n.bin", names="published", reporter=told)
    assert set(done.changed) == {
        "trunk.vision_heads: 4 here, 2 there",
        "trunk.quick_gelu: False here, True there",
        "mask_padding: True here, False there",
        "pool_temperature: 1.0 here, 0.1 there",
    }
    assert "the authors' code will compute something else" in told.warnings[0]
    save_network(
        make_network(kind="drl", drl={"interaction": "ti", "cdcr": 0}, mask_padding=False), tmp_path / "d.safetensors"
    )
    done = convert(tmp_path / "d.safetensors", tmp_path / "d.bin", names="published", reporter=told)
    assert done.changed == ("kind: drl here; the names are those of CLIP4Clip",)
    save_network(make_network(kind="openclip"), tmp_path / "o.safetensors")
    with pytest.raises(CheckpointError, match="nobody has published"):
        convert(tmp_path / "o.safetensors", tmp_path / "o.bin", names="published")


def _torchscript(state: State, path: Path) -> None:
    """A TorchScript archive with these names, as OpenAI's files are."""
    root = torch.nn.Module()
    for name, value in state.items():
        module, *rest = root, *name.split(".")
        for part in rest[:-1]:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = module.get_submodule(part)
            module.mask = torch.ones(3, 3)  # attributes, no parameters
            module.sizes, module.names = [1, 2], {"a": [0.5]}
        module.register_parameter(rest[-1], torch.nn.Parameter(value.clone(), requires_grad=False))
    for name, number in zip(CLIP_NOTES, (32, 16, 300), strict=True):
        root.register_buffer(name, torch.tensor(number))
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_clip_alone_is_told(sizes, tmp_path) -> None:
    torch.manual_seed(0)
    state = ClipTrunk(sizes).half().state_dict()
    _torchscript(state, tmp_path / "ViT.pt")
    save_file(state, tmp_path / "w.safetensors")
    archive, plain = inspect(tmp_path / "ViT.pt"), inspect(tmp_path / "w.safetensors")
    assert (archive.title, archive.format) == ("CLIP trunk, OpenAI's own TorchScript archive", "torchscript")
    assert (plain.title, plain.format) == ("CLIP trunk, a state dict", "safetensors")
    assert any("activation is not recorded" in line for line in plain.odd)
    assert not any("activation" in line for line in archive.odd)
    for seen in (archive, plain):
        assert (seen.kind, seen.refused, seen.digest) == ("trunk", None, None)
        assert (seen.sizes["image_size"], seen.sizes["vision_heads"], seen.sizes["text_layers"]) == (32, 2, 2)
        with pytest.raises(CheckpointError, match="CLIP trunk, which is used as it is"):
            convert(Path(seen.file), tmp_path / "o.safetensors")
    save_file({k: v for k, v in state.items() if ".resblocks.0." not in k}, tmp_path / "gap.safetensors")
    gap = inspect(tmp_path / "gap.safetensors")
    assert gap.refused is not None
    assert any("transformer.resblocks.0.*: no such block" in line for line in gap.refused.details)
    assert (gap.kind, gap.title) == (None, "not a whole CLIP trunk")


def test_our_own_files_say_what_they_are(make_network, tmp_path) -> None:
    network = make_network(kind="drl", frames=7)
    save_network(network, tmp_path / "run" / "best.safetensors")
    seen = inspect(tmp_path / "run")
    assert (seen.title, seen.kind, seen.digest) == (
        "DRL with weight networks of 2 layers; a file of teachclip's",
        "drl",
        network_digest(network),
    )
    assert (seen.sizes["frames"], seen.assumed, seen.source) == (7, (), None)
    assert seen.settings["layers"] == 2
