"""Files that cannot be used: explained and refused by every door, without harm."""

import argparse
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from teachclip.configs.schema import TeacherConfig, TrunkConfig
from teachclip.errors import CheckpointError, TeachclipError
from teachclip.pipeline.cli.main import app
from teachclip.stages.models.checkpoints.convert import convert
from teachclip.stages.models.checkpoints.files import from_published, load_network, save_network
from teachclip.stages.models.checkpoints.inspect import inspect
from teachclip.stages.models.clip.loading import build_trunk
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.models.weights.names import published_name, to_hugging_face
from typer.testing import CliRunner

State = dict[str, torch.Tensor]
SCREEN = 24  # lines


@pytest.fixture
def published(make_network):
    """`published(kind="student", shift_layers=(), **settings)`: a random network's tensors under published names."""

    def make(kind: str = "student", shift_layers: tuple[int, ...] = (), **settings: object) -> State:
        network = make_network(kind=kind, mask_padding=False, **settings)
        return {published_name(name, shift_layers): value for name, value in network.state_dict().items()}

    return make


def _message(path: Path) -> str:
    """What every door says of a file; all say the same."""
    with pytest.raises(TeachclipError) as refusal:
        load_network(path)
    with pytest.raises(type(refusal.value)) as again:
        convert(path, path.with_name("converted.safetensors"))
    assert str(again.value) == str(refusal.value)
    assert not path.with_name("converted.safetensors").exists()
    assert len(str(refusal.value).splitlines()) <= SCREEN
    with pytest.raises(type(refusal.value)) as taught:
        load_teacher(TeacherConfig(name="t", checkpoint=path), path)
    assert str(taught.value) == str(refusal.value)
    for verb in (["inspect", str(path)], ["convert", str(path), str(path.with_name("o.safetensors"))]):
        result = CliRunner().invoke(app, ["checkpoint", *verb])
        assert result.exit_code == refusal.value.exit_code
        assert "Traceback" not in result.output
        assert "unexpected" not in result.stderr
        assert refusal.value.what in result.stderr
        for detail in refusal.value.details:
            assert detail in result.stderr
    return str(refusal.value)


def _refused(state: State, tmp_path: Path) -> str:
    torch.save(state, tmp_path / "n.bin")
    return _message(tmp_path / "n.bin")


def _without(state: State, *starts: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(starts)}


def test_half_a_model_names_the_tower(published, tmp_path) -> None:
    state = published()
    message = _refused(_without(state, "clip.visual."), tmp_path)
    assert "CLIP's image tower missing" in message
    assert "clip.visual.conv1.weight" in message
    text = ("clip.token_embedding", "clip.positional", "clip.transformer", "clip.ln_final", "clip.text_projection")
    assert "CLIP's text tower missing" in _refused(_without(state, *text), tmp_path)
    assert "clip.ln_final.weight" in _refused(_without(state, "clip.ln_final."), tmp_path)


@pytest.mark.parametrize("tower", ["clip.visual.transformer.", "clip.transformer.", "transformerClip."])
def test_a_block_missing_in_the_middle_is_named(published, sizes, tmp_path, tower) -> None:
    deep = sizes.model_copy(update={"vision_layers": 3, "text_layers": 3})
    state = published(sizes=deep, temporal_layers=3)
    message = _refused(_without(state, f"{tower}resblocks.1."), tmp_path)
    assert f"{tower}resblocks.1.*: no such block, though there is a block 2" in message
    numbered = {name.replace(f"{tower}resblocks.2.", f"{tower}resblocks.9999."): v for name, v in state.items()}
    assert "and 18 more" in _refused(numbered, tmp_path)


def test_positions_that_are_no_square_grid_are_refused(published, tmp_path) -> None:
    state = published()
    state["clip.visual.positional_embedding"] = torch.zeros(7, 128)
    assert "clip.visual.positional_embedding: 7 rows are no class token and a square grid" in _refused(state, tmp_path)


@pytest.mark.parametrize("shape", [(), (128,), (128, 3, 0, 0), (128, 3, 16)])
def test_tensors_of_useless_shapes_are_named(published, tmp_path, shape) -> None:
    state = published()
    state["clip.visual.conv1.weight"] = torch.zeros(shape)
    assert f"clip.visual.conv1.weight: of shape {shape}" in _refused(state, tmp_path)


def test_mixed_names_of_clip_are_refused(published, tmp_path) -> None:
    state = published(kind="xpool")
    foreign = to_hugging_face(state)
    mixed = {name: value for name, value in state.items() if name.startswith("clip.visual.")}
    mixed |= {name: value for name, value in foreign.items() if not name.startswith("clip.vision_model.")}
    message = _refused(mixed, tmp_path)
    assert "OpenAI's names" in message
    assert "Hugging Face's" in message
    assert "clip.visual.class_embedding" in message


def test_one_missing_projection_of_hugging_faces_is_named(published, tmp_path) -> None:
    state = to_hugging_face(published(kind="xpool"))
    name = "clip.text_model.encoder.layers.1.self_attn.k_proj.weight"
    assert name in _refused(_without(state, name), tmp_path)
    everything = "clip.text_model.encoder.layers.1.self_attn."
    message = _refused(_without(state, everything), tmp_path)
    assert "clip.text_model.encoder.layers.1.self_attn.{q,k,v}_proj.weight" in message


def test_token_shift_in_one_of_two_blocks_is_refused(published, sizes, tmp_path) -> None:
    deep = sizes.model_copy(update={"vision_layers": 12, "patch_size": 8})
    settings = {"kind": "ts2net", "sizes": deep, "ts2net": {"shift_layers": (10, 11)}}
    both = published(shift_layers=(10, 11), **settings)
    assert from_published(both).config.ts2net.shift_layers == (10, 11)
    one = {name.replace("resblocks.11.attn.net.", "resblocks.11.attn."): value for name, value in both.items()}
    assert "block 10 alone has token shift" in _refused(one, tmp_path)
    twice = both | {"clip.visual.transformer.resblocks.10.attn.out_proj.bias": torch.zeros(128)}
    assert "twice" in _refused(twice, tmp_path)


def test_other_frames_and_words_than_recorded_are_refused(published, make_network, tmp_path) -> None:
    torch.save(published(kind="xclip"), tmp_path / "xclip.bin")
    save_network(make_network(), tmp_path / "own.safetensors")
    for name in ("xclip.bin", "own.safetensors"):
        for slots, words in (({"frames": 6}, "made for 5 frames, and 6"), ({"words": 9}, "made for 10 words, and 9")):
            with pytest.raises(CheckpointError, match=words):
                convert(tmp_path / name, tmp_path / "o.safetensors", names="published", **slots)
    torch.save(published(), tmp_path / "student.bin")
    with pytest.raises(CheckpointError, match="16 positions, and 17 words"):
        convert(tmp_path / "student.bin", tmp_path / "o.safetensors", words=17)
    with pytest.raises(CheckpointError, match=r"frame_position_embeddings\.weight: \(16, 64\) instead of \(40, 64\)"):
        convert(tmp_path / "student.bin", tmp_path / "o.safetensors", frames=40)


def test_our_tensors_without_their_configuration_are_refused(make_network, tmp_path) -> None:
    save_file(make_network().state_dict(), tmp_path / "n.safetensors")
    assert "without the configuration" in _message(tmp_path / "n.safetensors")


def test_integers_and_numbers_that_are_not_finite_are_refused(published, tmp_path) -> None:
    state = published()
    whole = state | {"clip.visual.proj": torch.ones(128, 64, dtype=torch.int8)}
    assert "clip.visual.proj: torch.int8" in _refused(whole, tmp_path)
    state["clip.ln_final.bias"] = torch.full((64,), torch.inf)
    assert "clip.ln_final.bias" in _refused(state, tmp_path)


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["zip", "legacy", "beside", "safetensors-name"])
def test_code_in_a_pickle_is_not_run(published, tmp_path, form) -> None:
    trace = tmp_path / "ran"
    path = tmp_path / ("n.safetensors" if form == "safetensors-name" else "n.bin")
    if form == "legacy":
        path.write_bytes(pickle.dumps({"clip.logit_scale": _Payload(trace)}))
    else:
        torch.save({"state_dict": published(), "epoch": _Payload(trace)} if form == "beside" else _Payload(trace), path)
    message = _message(path)
    assert "more than tensors" in message or form == "safetensors-name"
    assert not trace.exists()


class _Writes(torch.nn.Module):
    """TorchScript that writes a file as soon as torch.jit.load reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]
        torch.save(state[0], "ran-on-load")

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_code_in_a_torchscript_archive_is_not_run(sizes, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(_Writes()), "n.pt")
    torch.jit.load("n.pt")
    assert (tmp_path / "ran-on-load").exists()  # torch's own loader runs it
    (tmp_path / "ran-on-load").unlink()
    assert "more than tensors" in _message(tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match="more than tensors"):
        build_trunk(TrunkConfig(sizes=sizes, weights=str(tmp_path / "n.pt")))
    assert not (tmp_path / "ran-on-load").exists()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """A small TorchScript archive."""
    module = torch.nn.Module()
    module.visual = torch.nn.Linear(300, 30)
    torch.jit.save(torch.jit.script(module), tmp_path / "made.pt")
    return (tmp_path / "made.pt").read_bytes()


def _zip(entries: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", packed) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return made.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.5, 0.9, 0.999])
def test_cut_torchscript_archives_are_one_clear_error(archive, tmp_path, kept) -> None:
    (tmp_path / "n.pt").write_bytes(archive[: int(len(archive) * kept)])
    assert len(_message(tmp_path / "n.pt").splitlines()) <= 3


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_broken_zip_directory_is_one_clear_error(archive, tmp_path) -> None:
    start = archive.rindex(b"PK\x01\x02")
    for broken in (archive[:start] + b"XX" + archive[start + 2 :], archive[: start + 20] + archive[start + 24 :]):
        (tmp_path / "n.pt").write_bytes(broken)
        assert "damaged" in _message(tmp_path / "n.pt")


def test_archives_that_are_no_archives_of_torch_are_one_clear_error(tmp_path) -> None:
    bomb = bytes(80 * 2**20)
    forms = {
        "empty": _zip({}),
        "text": _zip({"readme.txt": b"hello"}),
        "no pickle": _zip({"a/constants.pkl": b"x"}),
        "no module": _zip({"a/constants.pkl": b"", "a/data.pkl": pickle.dumps({"a": 1}, 2), "a/version": b"3"}),
        "broken pickle": _zip({"a/constants.pkl": b"", "a/data.pkl": b"\x80\x02c", "a/version": b"3"}),
        "large pickle": _zip({"a/constants.pkl": b"", "a/data.pkl": bomb, "a/version": b"3"}, zipfile.ZIP_DEFLATED),
        "large entry": _zip({"a/data.pkl": b"\x80\x02}.", "a/data/0": bomb, "a/version": b"3"}, zipfile.ZIP_DEFLATED),
    }
    said = {"large pickle": "data.pkl is too large", "large entry": "compressed, as torch never does"}
    for name, data in forms.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(data)
        message = _message(path)
        assert len(message.splitlines()) <= 4, name
        assert said.get(name, "") in message


def test_absurd_safetensors_headers_are_one_clear_error(tmp_path) -> None:
    huge = json.dumps({"clip.logit_scale": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    overlap = json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode()
    forms = [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 90 * 2**20) + b"{",
        struct.pack("<Q", len(huge)) + huge + bytes(4),
        struct.pack("<Q", len(overlap)) + overlap + bytes(4),
        struct.pack("<Q", 2) + b"{",
        b"",
    ]
    for number, data in enumerate(forms):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        assert "damaged" in _message(path)


def test_a_tensor_declared_larger_than_stored_does_not_fill_the_memory(published, tmp_path) -> None:
    state = published()
    state["clip.token_embedding.weight"] = torch.zeros(1).expand(2**40, 64)
    assert "clip.token_embedding.weight" in _refused(state, tmp_path)
    state["clip.token_embedding.weight"] = torch.zeros(300, 64).to_sparse()
    assert "clip.token_embedding.weight" in _refused(state, tmp_path)


def test_folders_and_files_without_tensors_are_one_clear_error(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    assert "no best.safetensors" in _message(tmp_path / "folder")
    (tmp_path / "empty.bin").touch()
    assert "damaged" in _message(tmp_path / "empty.bin")
    torch.save({"optimizer": {}, "epoch": 3}, tmp_path / "opt.bin")
    assert "no state_dict" in _message(tmp_path / "opt.bin")
    assert "no such checkpoint" in _message(tmp_path / "absent.bin")


def test_a_folder_of_somebody_elses_is_told_with_what_lies_in_it(tmp_path) -> None:
    for name in ("a.ckpt", "b.pth.tar", "c.pt", "d.bin", "notes.txt"):
        (tmp_path / name).touch()
    assert "name a file in it: a.ckpt, b.pth.tar, c.pt or one of 1 more" in _message(tmp_path)
    (tmp_path / "config.yaml").touch()  # a run of ours that has not come to its end
    assert "train it first" in _message(tmp_path)
    (tmp_path / "__0_0.distcp").touch()
    assert "save the full state as one file" in _message(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_checkpoint_holds_beside_tensors_is_named(published, tmp_path, legacy) -> None:
    """Most often the arguments that a script was called with."""
    value = {"model": published(), "args": argparse.Namespace(lr=1e-4)}
    torch.save(value, tmp_path / "n.pt", _use_new_zipfile_serialization=not legacy)
    message = _message(tmp_path / "n.pt")
    assert "it holds argparse.Namespace" in message
    assert len(message.splitlines()) == 3


def test_what_is_refused_is_still_explained(published, tmp_path) -> None:
    state = published(kind="xclip")
    torch.save(_without(state, "clip.visual.proj", "word_mat_weight2"), tmp_path / "n.bin")
    found = inspect(tmp_path / "n.bin")
    assert found.refused is not None
    assert any("clip.visual.proj" in line for line in found.refused.details)
    assert any("word_mat_weight2" in line for line in found.refused.details)
    assert (found.title, found.sizes["image_size"], found.sizes["vision_heads"]) == ("X-CLIP", 32, 2)
    assert (found.sizes["frames"], found.sizes["words"], found.digest) == (5, 10, None)
    torch.save(_without(state, "clip.visual."), tmp_path / "half.bin")
    half = inspect(tmp_path / "half.bin")
    assert (half.title, half.kind, half.sizes["embed_dim"]) == ("X-CLIP", None, 64)
    assert "image_size" not in half.sizes
    torch.save({"something.weight": torch.ones(3, 4)}, tmp_path / "else.bin")
    other = inspect(tmp_path / "else.bin")
    assert (other.title, other.tensors, other.parameters) == ("not known here", 1, 12)
    assert other.refused is not None
