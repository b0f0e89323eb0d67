"""Networks to files and back; foreign and broken files."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from teachclip.configs.schema import TeacherConfig
from teachclip.errors import CheckpointError
from teachclip.remedies import Train
from teachclip.stages.models.checkpoints.files import (
    class_token_digest,
    from_published,
    load_network,
    network_digest,
    save_network,
)
from teachclip.stages.models.frozen.teacher import load_teacher
from teachclip.stages.models.weights.names import our_name
from teachclip.stages.runtime.reporting import Silent

KINDS = {
    "afa": {},
    "mean": {"pooling": "mean"},
    "no-temporal": {"temporal_layers": 0},
    "xclip": {"kind": "xclip"},
    "paper": {"pool_temperature": 1.0, "normalise_frames": False},
}


class _Told(Silent):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def info(self, message: str) -> None:
        self.messages.append(message)


def _published(network) -> dict[str, torch.Tensor]:
    """The network's weights under the published names."""
    names = {
        "trunk.": "clip.",
        "temporal.positions": "frame_position_embeddings.weight",
        "temporal.": "transformerClip.",
        "afa.hidden.": "frameLinear.",
        "afa.score.": "frameLinear2.",
    }
    state = {}
    for name, value in network.state_dict().items():
        prefix = next((prefix for prefix in names if name.startswith(prefix)), None)
        state[name if prefix is None else names[prefix] + name.removeprefix(prefix)] = value
    return state


def _outputs(network, clips, ids) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        texts, videos = network.eval().encode_texts(ids), network.encode_videos(*clips)
        return network.score(texts, videos), *texts.values(), *videos.values()


def _same(first: tuple[torch.Tensor, ...], second: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_saved_network_comes_back_the_same(make_network, clips, ids, tmp_path, settings) -> None:
    network = make_network(**settings)
    save_network(network, tmp_path / "run" / "best.safetensors")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["best.safetensors"]
    for path in (tmp_path / "run", tmp_path / "run" / "best.safetensors"):
        loaded = load_network(path)
        assert type(loaded) is type(network)
        assert loaded.config == network.config
        assert network_digest(loaded) == network_digest(network)
        assert all(parameter.requires_grad for parameter in loaded.parameters())
        _same(_outputs(loaded, clips, ids), _outputs(network, clips, ids))


def test_a_loaded_network_does_not_hang_on_its_file(make_network, tmp_path) -> None:
    """Training overwrites the checkpoint it started from."""
    path = tmp_path / "n.safetensors"
    save_network(make_network(seed=0), path)
    loaded = load_network(path)
    digest = network_digest(loaded)
    save_network(make_network(seed=1), path)
    path.write_bytes(bytes(path.stat().st_size))
    assert network_digest(loaded) == digest


@pytest.mark.parametrize("form", ["bin", "safetensors", "half", "module"])
@pytest.mark.parametrize("kind", ["student", "xclip"])
def test_published_checkpoints_load_by_name(make_network, clips, ids, tmp_path, kind, form) -> None:
    network = make_network(kind=kind, mask_padding=False)
    state = _published(network)
    if form == "half":  # the published files keep convolutions, linear layers and projections so
        state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
        network.load_state_dict({our_name(name): value.float() for name, value in state.items()})
    if form == "module":
        state = {f"module.{name}": value for name, value in state.items()}
    path = tmp_path / ("n.safetensors" if form == "safetensors" else "pytorch_model.bin")
    save_file(state, path) if form == "safetensors" else torch.save(state, path)
    loaded = load_network(path)
    assert loaded.config.kind == kind
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    _same(_outputs(loaded, clips, ids), _outputs(network, clips, ids))


def test_unused_modules_of_published_students_are_left_out_and_named(make_network) -> None:
    state = _published(make_network())
    extra = {"cross.embeddings.weight": torch.ones(2), "similarity_dense.bias": torch.ones(1)}
    extra |= {f"clip.{name}": torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    told = _Told()
    loaded = from_published(state | extra, reporter=told)
    assert network_digest(loaded) == network_digest(from_published(state))
    assert "5 tensors that it does not use" in told.messages[0]
    assert "similarity_dense.bias" in told.messages[0]


def test_xclip_files_with_openai_numbers_load(make_network) -> None:
    state = _published(make_network(kind="xclip"))
    from_published(state | {"clip.input_resolution": torch.tensor(32), "clip.vocab_size": torch.tensor(300)})


def test_a_student_pools_by_mean_where_asked(make_network, clips, ids) -> None:
    network = make_network(mask_padding=False)
    told = _Told()
    pooled = from_published(_published(network), pooling="mean", reporter=told)
    assert pooled.config.pooling == "mean"
    assert "frameLinear2.weight" in told.messages[0]
    assert not pooled.encode_videos(*clips)["vector"].equal(network.encode_videos(*clips)["vector"])


@pytest.mark.parametrize("kind", ["student", "xclip"])
def test_missing_unknown_and_misshaped_tensors_are_refused_by_name(make_network, kind) -> None:
    state = _published(make_network(kind=kind))
    state.pop("clip.visual.ln_post.bias")
    state["clip.visual.proj"] = torch.zeros(7, 64)
    state |= {f"else.{k}": torch.zeros(1) for k in range(14)}
    with pytest.raises(CheckpointError) as refusal:
        from_published(state, where="model.bin")
    message = str(refusal.value)
    assert message.startswith("model.bin: ")
    for part in ("1 missing", "clip.visual.ln_post.bias", "clip.visual.proj: (7, 64) instead of (128, 64)"):
        assert part in message
    assert "14 not known here" in message
    assert "else.9" in message
    assert "else.10" not in message
    assert "and 4 more" in message


def test_an_xclip_of_other_words_is_not_half_loaded(make_network) -> None:
    state = _published(make_network(kind="xclip"))
    state["word_mat_weight"] = torch.eye(9)
    with pytest.raises(CheckpointError, match=r"word_mat_weight: \(9, 9\) instead of \(10, 10\)"):
        from_published(state)


def test_weights_that_are_not_finite_are_refused(make_network) -> None:
    state = _published(make_network())
    state["clip.text_projection"] = state["clip.text_projection"].clone()
    state["clip.text_projection"][3, 4] = torch.nan
    with pytest.raises(CheckpointError, match=r"clip.text_projection"):
        from_published(state)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>" * 50, b"PK\x03\x04broken", b"\x10" + bytes(7) + b"{"])
@pytest.mark.parametrize("name", ["n.safetensors", "n.bin", "n.pt"])
def test_files_that_are_no_checkpoints_are_one_clear_error(tmp_path, content, name) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as refusal:
        load_network(tmp_path / name)
    assert name in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3


@pytest.mark.parametrize("name", ["n.safetensors", "n.bin"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_cut_off_files_are_one_clear_error(make_network, tmp_path, name, kept) -> None:
    network, path = make_network(), tmp_path / name
    save_network(network, path) if name.endswith("safetensors") else torch.save(_published(network), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(CheckpointError) as refusal:
        load_network(path)
    assert name in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(tmp_path, legacy) -> None:
    path, trace = tmp_path / "n.bin", tmp_path / "ran"
    if legacy:
        path.write_bytes(pickle.dumps({"clip.logit_scale": _Payload(trace)}))
    else:
        torch.save({"clip.logit_scale": _Payload(trace)}, path)
    with pytest.raises(CheckpointError, match="more than tensors"):
        load_network(path)
    assert not trace.exists()


def test_an_absent_checkpoint_and_an_unfinished_run_are_told_apart(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_network(tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"no best.safetensors") as caught:
        load_network(tmp_path)
    assert caught.value.hint.action == Train({"train.run": str(tmp_path)})


def _rewrite_note(path: Path, change) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        note = json.loads(file.metadata()["teachclip"])
    change(note)
    save_file(load_file(path), path, metadata={"teachclip": json.dumps(note)})


def test_a_checkpoint_of_a_later_release_asks_for_it(make_network, tmp_path) -> None:
    path = tmp_path / "n.safetensors"
    save_network(make_network(), path)
    _rewrite_note(path, lambda note: note.update(format=99))
    with pytest.raises(CheckpointError, match="format 99"):
        load_network(path)
    _rewrite_note(path, lambda note: note.update(format=1, network={"kind": "unheard-of"}))
    with pytest.raises(CheckpointError, match="configuration in this checkpoint"):
        load_network(path)


@pytest.mark.parametrize("state", [{}, {"model.weight": torch.ones(3)}, {"clip.logit_scale": torch.ones(())}])
def test_checkpoints_of_other_networks_are_refused(tmp_path, state) -> None:
    torch.save(state, tmp_path / "n.bin")
    with pytest.raises(CheckpointError, match="neither a checkpoint of teachclip nor a published"):
        load_network(tmp_path / "n.bin")


@pytest.mark.parametrize("form", ["list", "numbers"])
def test_files_without_a_state_dict_are_refused(tmp_path, form) -> None:
    torch.save([torch.ones(2)] if form == "list" else {"epoch": 3}, tmp_path / "n.bin")
    with pytest.raises(CheckpointError, match="no state_dict"):
        load_network(tmp_path / "n.bin")


def test_the_digest_tells_networks_apart(make_network, sizes) -> None:
    base = make_network()
    digests = {
        network_digest(network)
        for network in (
            base,
            make_network(seed=1),
            make_network(mask_padding=False),
            make_network(pool_temperature=1.0),
            make_network(sizes=sizes.model_copy(update={"vision_heads": 4})),
            make_network(kind="xclip"),
        )
    }
    assert len(digests) == 6
    assert network_digest(make_network(words=12)) == network_digest(base)  # not a matter of the weights
    with torch.no_grad():
        base.trunk.visual.ln_post.bias[0] += 1
    assert network_digest(base) not in digests
    assert class_token_digest(base) == class_token_digest(make_network())
    with torch.no_grad():
        base.trunk.visual.ln_pre.bias[0] += 1
    assert class_token_digest(base) != class_token_digest(make_network())


class TestTeacher:
    """Networks as teachers of stage one."""

    @pytest.fixture
    def real_words(self, sizes):
        return sizes.model_copy(update={"vocab_size": 49408})

    @pytest.mark.parametrize("kind", ["student", "xclip"])
    def test_every_checkpoint_can_teach(self, make_network, real_words, clips, tmp_path, kind) -> None:
        network = make_network(kind=kind, sizes=real_words)
        save_network(network, tmp_path / "best.safetensors")
        teacher = load_teacher(TeacherConfig(name="T", checkpoint=Path("run")), tmp_path, "cpu")
        assert (teacher.name, teacher.frames, teacher.words, teacher.score_version) == ("T", 5, 10, 1)
        assert teacher.scale == pytest.approx(network.logit_scale.exp().item())
        assert teacher.weights_digest == network_digest(network)
        frames, mask = clips
        videos = teacher.encode_videos(frames, mask, torch.zeros(4, 5))
        texts = teacher.encode_texts(["a cat", "two dogs run", "a red circle moves left", ""])
        scores = teacher.score(texts, videos)
        assert scores.shape == (4, 4)
        assert teacher.frame_logits(texts, videos).shape == (4, 5)
        with torch.autocast("cpu", torch.bfloat16):  # online teaching runs inside the training step
            again = teacher.score(teacher.encode_texts(["a cat"]), videos)
            torch.testing.assert_close(again, scores[:1], rtol=0, atol=1e-6)
        assert not scores.requires_grad

    def test_frames_of_another_number_or_size_are_refused(self, make_network, real_words, clips, tmp_path) -> None:
        save_network(make_network(sizes=real_words), tmp_path / "best.safetensors")
        teacher = load_teacher(TeacherConfig(name="T", checkpoint=Path("run")), tmp_path)
        frames, mask = clips
        with pytest.raises(CheckpointError, match="5 frames of 32 pixels; these are 4 of 32"):
            teacher.encode_videos(frames[:, :4], mask[:, :4], torch.zeros(4, 4))
        with pytest.raises(CheckpointError, match="these are 5 of 16"):
            teacher.encode_videos(frames[..., :16, :16], mask, torch.zeros(4, 5))

    def test_another_vocabulary_is_refused(self, make_network, tmp_path) -> None:
        save_network(make_network(), tmp_path / "best.safetensors")
        with pytest.raises(CheckpointError, match="300 tokens"):
            load_teacher(TeacherConfig(name="T", checkpoint=Path("run")), tmp_path)
