"""Towers as files: they compute what the network does, in any number and length, and are complete or absent."""

import errno
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig, TrunkSizes
from teachclip.errors import CheckpointError, ConfigError, TeachclipError
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.models.exported import export, forms
from teachclip.stages.models.exported.export import SETTINGS, ExportedModel, export_model
from teachclip.stages.models.named import named_model

slow = partial(pytest.param, marks=pytest.mark.slow)

type Given = Sequence[torch.Tensor]

SIZES = TrunkSizes(
    image_size=32,
    patch_size=16,
    vision_width=64,
    vision_layers=1,
    text_width=16,
    text_layers=1,
    embed_dim=64,
    context_length=16,
)
SENTENCES = ["a dog", "two teams play football in the rain while a crowd watches", "clip number 2", "red"]
STUDENTS: dict[str, dict[str, Any]] = {
    "afa": {},
    "afa, padding counts": {"mask_padding": False},
    "mean": {"pooling": "mean", "temporal_layers": 0},
    "openclip": {"kind": "openclip", "temporal_layers": 0},
}


def save(folder: Path, **settings: Any) -> Path:
    """The run folder of a random network that reads captions."""
    torch.manual_seed(0)
    network = {"words": 10, "frames": 5, "temporal_layers": 1} | settings
    config = NetworkConfig.model_validate({"trunk": TrunkConfig(sizes=SIZES, weights=None), **network})
    save_network(build_network(config), folder / "best.safetensors")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with AFA."""
    return save(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportedModel]:
    """It as torch.export saves it; the folder is not changed."""
    out = tmp_path_factory.mktemp("exported") / "out"
    return out, export_model(str(run), out, "torch")


def onnxruntime_or_skip() -> Any:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed: the extra onnx")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the extra onnx")


def by_onnxruntime(path: Path) -> Callable[[Given], torch.Tensor]:
    session = onnxruntime_or_skip().InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(given: Given) -> torch.Tensor:
        return torch.from_numpy(session.run(["vectors"], dict(zip(names, map(np.asarray, given), strict=True)))[0])

    return run


def by_torch(path: Path) -> Callable[[Given], torch.Tensor]:
    module = torch.export.load(path).module()
    return lambda given: module(*given)


def differences(run: Path | str, folder: Path, load: Callable[..., Any], ending: str) -> dict[str, float]:
    """By how much vectors of either tower differ, over batches and lengths of all kinds."""
    network = named_model(run).network
    found = {"text": [0.0], "video": [0.0]}
    drawn = torch.Generator().manual_seed(3)
    text, video = load(folder / f"text{ending}"), load(folder / f"video{ending}")
    with torch.no_grad():
        for count in (1, 2, 4):
            for words in (10, 16):
                ids = tokenize(SENTENCES[:count], words)[0]
                found["text"].append(float((text([ids]) - network.encode_texts(ids)["vector"]).norm(dim=1).max()))
        for videos, slots in ((1, 1), (1, 5), (4, 5), (3, 2), (2, 8)):
            frames = torch.randint(0, 256, (videos, slots, 3, 32, 32), dtype=torch.uint8, generator=drawn)
            mask = torch.arange(slots) < torch.randint(1, slots + 1, (videos, 1), generator=drawn)
            ours = network.encode_videos(frames, mask)["vector"]
            found["video"].append(float((video([frames, mask]) - ours).norm(dim=1).max()))
    return {name: max(each) for name, each in found.items()}


@pytest.mark.parametrize("student", ["afa", slow("mean")])
def test_onnxruntime_computes_the_same_vectors(tmp_path: Path, student: str) -> None:
    onnxruntime_or_skip()
    run = save(tmp_path / "run", **STUDENTS[student])
    done = export_model(str(run), tmp_path / "out")
    assert max(differences(run, tmp_path / "out", by_onnxruntime, ".onnx").values()) < 1e-5
    assert max(done.differ.values()) < 1e-5
    told = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert told["opset"] == forms.OPSET
    assert str(tmp_path).encode() not in b"".join(file.read_bytes() for file in (tmp_path / "out").iterdir())


def test_float16_weights_are_half_as_large_and_nearly_the_same(run: Path, tmp_path: Path) -> None:
    onnxruntime_or_skip()
    done = export_model(str(run), tmp_path / "out", precision="float16")
    words = named_model(run).network.trunk.vocab_size * SIZES.text_width
    assert 2 * words < done.bytes["text"] < 3 * words
    assert 0 < max(differences(run, tmp_path / "out", by_onnxruntime, ".onnx").values()) < 5e-3


def test_int8_weights_are_a_quarter_as_large_and_near(run: Path, tmp_path: Path) -> None:
    onnxruntime_or_skip()
    done = export_model(str(run), tmp_path / "out", precision="int8")
    words = named_model(run).network.trunk.vocab_size * SIZES.text_width
    assert words < done.bytes["text"] < 1.5 * words
    assert 1e-3 < max(differences(run, tmp_path / "out", by_onnxruntime, ".onnx").values()) < 0.2
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_torch_export_has_no_int8(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of ONNX alone"):
        export_model("nothing", tmp_path / "out", "torch", "int8")


@pytest.mark.parametrize("student", ["afa, padding counts", "openclip", slow("afa"), slow("mean")])
def test_torch_export_computes_the_same_vectors(tmp_path: Path, student: str) -> None:
    run = save(tmp_path / "run", **STUDENTS[student])
    export_model(str(run), tmp_path / "out", "torch")
    assert max(differences(run, tmp_path / "out", by_torch, ".pt2").values()) < 1e-5
    told = json.loads((tmp_path / "out" / SETTINGS).read_text())
    assert told["digest"] == named_model(run).digest
    assert told["video"]["pad_to_frames"] == (student == "afa, padding counts")


def test_vectors_cut_short(run: Path, tmp_path: Path) -> None:
    done = export_model(f"{run}@24", tmp_path / "out", "torch")
    assert done.width == 24
    assert done.digest == f"{named_model(run).digest}@24"
    assert max(differences(f"{run}@24", tmp_path / "out", by_torch, ".pt2").values()) < 1e-5


def test_what_is_written(run: Path, made: tuple[Path, ExportedModel]) -> None:
    out, done = made
    assert (done.form, done.precision, done.width, done.digest) == ("torch", "float32", 64, named_model(run).digest)
    assert {file.name for file in out.iterdir()} == {"text.pt2", "video.pt2", "vocab.json", "merges.txt", SETTINGS}


def test_each_tower_has_its_own_weights_alone_and_no_path(run: Path, made: tuple[Path, ExportedModel]) -> None:
    out, done = made
    trunk: Any = named_model(run).network.trunk
    vision = sum(weight.nbytes for weight in trunk.visual.parameters())
    assert vision < done.bytes["video"] < trunk.token_embedding.weight.nbytes < done.bytes["text"]
    for file in out.iterdir():
        assert str(run).encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()


def test_the_tokenizer_lies_beside(made: tuple[Path, ExportedModel]) -> None:
    out, _ = made
    tokens = json.loads((out / "vocab.json").read_text("utf-8"))
    merges = (out / "merges.txt").read_text("utf-8").splitlines()
    told = json.loads((out / SETTINGS).read_text())["tokenizer"]
    assert (len(tokens), len(merges)) == (49408, 48894 + 1)
    assert tokens["<|startoftext|>"] == told["start"] == tokenize(["a"], 3)[0][0, 0]
    assert tokens["<|endoftext|>"] == told["end"] == 49407
    assert tokens["dog</w>"] == tokenize(["dog"], 3)[0][0, 1]


@pytest.mark.parametrize("kind", ["xclip", "drl"])
def test_a_teacher_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CheckpointError, match=f"kind {kind}.* no single vector") as error:
        export_model(str(save(tmp_path / "run", kind=kind)), tmp_path / "out", "torch")
    assert "export a student" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_network_on_expert_features_is_refused(tmp_path: Path) -> None:
    experts = {"modalities": {"colour": {"width": 5}}, "shared": 8}
    text = {"encoder": "w2v", "width": 4, "words": 3, "clusters": 2}
    settings = {"kind": "ce", "experts": {**experts, "text": text}}
    save_network(build_network(NetworkConfig.model_validate(settings)), tmp_path / "run/best.safetensors")
    with pytest.raises(TeachclipError, match="expert"):
        export_model(str(tmp_path / "run"), tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_left_alone(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for replace in (False, True):
        with pytest.raises(ConfigError, match="something else is there"):
            export_model(str(run), out, "torch", replace=replace)
    assert (out / "mine.txt").read_text() == "mine"
    (out / SETTINGS).write_text("{}")
    with pytest.raises(ConfigError, match="an exported model is there"):
        export_model(str(run), out, "torch")
    assert export_model(str(run), out, "torch", replace=True).folder == str(out)
    assert not (out / "mine.txt").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("difference", [2e-4, float("nan")])
def test_a_tower_that_differs_is_not_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float
) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: difference)
    with pytest.raises(CheckpointError, match="text tower makes vectors that lie"):
        export_model(str(run), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_NEEDS", ("json", "no_such_library"))
    with pytest.raises(ConfigError, match="ONNX needs no_such_library") as error:
        export_model("nothing", tmp_path / "out")
    assert "teachclip[onnx]" in str(error.value)


def test_what_has_no_graph_is_told(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: VideoTextNetwork, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"vector": self.trunk.encode_sentences(ids) * float(ids.sum())}

    monkeypatch.setattr("teachclip.stages.models.student.Student.encode_texts", encode)
    with pytest.raises(CheckpointError, match="no graph can be made of its text tower"):
        export_model(str(run), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_the_networks_fault(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        export_model(str(run), tmp_path / "out", "torch")
    assert list(tmp_path.iterdir()) == []
