"""`teachclip.load`: vectors of sentences and files, equal to those of `index` and `evaluate`; what is refused, how."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teachclip
import torch
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.vectors import read_vectors
from teachclip.configs.loading import dump_config
from teachclip.errors import CheckpointError, ConfigError, DataError
from teachclip.stages.data.video_inputs import FrameInputs
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import load_network, save_network
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.retrieval.encode import encode_videos
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.encoder import EncodedVideos, Encoder, load
from teachclip.stages.search.index import index

SENTENCES = ["clip number 2", "something else", "a"]


@pytest.fixture(scope="module")
def student(prepared: Any) -> Encoder:
    return load(prepared.root / "work" / "runs" / "a", device="cpu")


@pytest.fixture(scope="module")
def paths(prepared: Any) -> list[Path]:
    return [prepared.root / "own" / name for name in FrameCache.open(prepared.config().frames_folder).usable]


@pytest.fixture(scope="module")
def vectors(student: Encoder, paths: list[Path]) -> np.ndarray:
    return student.encode_videos(paths)


def test_vectors_are_those_of_index_bit_by_bit(place: Any, vectors: np.ndarray) -> None:
    index(place.config())
    made = read_vectors(place.config().index_folder)
    assert made is not None
    assert vectors.astype(np.float16).tobytes() == made.matrix.tobytes()


def test_vectors_are_those_of_evaluate_bit_by_bit(prepared: Any, student: Encoder, vectors: np.ndarray) -> None:
    frames = FrameCache.open(prepared.config().frames_folder)
    network = load_network(prepared.root / "work" / "runs" / "a").eval()
    wanted = encode_videos(network, FrameInputs(frames, frames.usable), Silent())["vector"]
    assert vectors.dtype == np.float32
    assert vectors.tobytes() == wanted.numpy().tobytes()
    with torch.no_grad():
        texts = network.encode_texts(tokenize(SENTENCES, 10)[0])["vector"]
    assert student.encode_texts(SENTENCES).tobytes() == texts.numpy().tobytes()
    cosines = student.similarity(student.encode_texts(SENTENCES), vectors)
    np.testing.assert_allclose(cosines, (texts @ wanted.T).numpy(), atol=1e-6)


def test_small_batches_are_the_same_vectors(student: Encoder, paths: list[Path], vectors: np.ndarray) -> None:
    np.testing.assert_allclose(student.encode_videos(paths, batch_size=2, workers=2), vectors, atol=1e-6)
    several = student.encode_texts(SENTENCES * 3, batch_size=4)
    np.testing.assert_allclose(several, np.tile(student.encode_texts(SENTENCES), (3, 1)), atol=1e-6)


def test_one_gives_one_vector_and_none_gives_none(student: Encoder, paths: list[Path], vectors: np.ndarray) -> None:
    width = student.get_sentence_embedding_dimension()
    assert width == 64
    np.testing.assert_allclose(student.encode_videos(str(paths[0])), vectors[0], atol=1e-6)
    np.testing.assert_allclose(student.encode_texts("a"), student.encode_texts(["a"])[0])
    assert student.encode_texts("a").shape == (width,)
    assert student.encode_texts([]).shape == student.encode_videos([]).shape == (0, width)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)


def test_what_people_type_for_sentence_transformers_works(
    student: Encoder, paths: list[Path], vectors: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = student.encode_texts(
        SENTENCES, batch_size=32, show_progress_bar=True, convert_to_numpy=True, convert_to_tensor=False, device="cpu",
        normalize_embeddings=True,
    )  # fmt: skip
    assert isinstance(texts, np.ndarray)
    tensors = student.encode_texts(SENTENCES, 32, False, convert_to_tensor=True)
    videos = student.encode_videos(paths[:2], batch_size=2, show_progress_bar=True, convert_to_tensor=True)
    assert isinstance(tensors, torch.Tensor)
    assert isinstance(videos, torch.Tensor)
    assert not tensors.is_inference()
    np.testing.assert_array_equal(tensors.numpy(), texts)
    told = capsys.readouterr()
    assert told.out == ""
    assert "sentences" in told.err
    assert "videos" in told.err
    mixed = student.similarity(texts, videos)
    assert isinstance(mixed, torch.Tensor)
    np.testing.assert_allclose(mixed, student.similarity(texts, vectors[:2]), atol=1e-6)
    assert student.similarity(texts[0], vectors).shape == (1, 5)
    student.encode_texts(SENTENCES)
    assert capsys.readouterr().err == ""
    with pytest.raises(ValueError, match=r"64 numbers here; this is \(2, 3\)"):
        student.similarity(texts, np.zeros((2, 3)))


def test_many_threads_encode_at_once(student: Encoder, paths: list[Path], vectors: np.ndarray) -> None:
    sentences = [[f"clip number {k} {'and so on ' * (k % 3)}"] * (k % 4 + 1) for k in range(40)]
    alone = [student.encode_texts(each) for each in sentences]
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    with ThreadPoolExecutor(8) as pool:
        films = [pool.submit(student.encode_videos, paths, workers=1) for _ in range(2)]
        together = list(pool.map(student.encode_texts, sentences))
    assert all(one.tobytes() == other.tobytes() for one, other in zip(alone, together, strict=True))
    assert all(film.result().tobytes() == vectors.tobytes() for film in films)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32) == flags


def test_a_file_that_does_not_decode_is_named(student: Encoder, paths: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"broken\.mp4: this video cannot be used: corrupt") as error:
        student.encode_videos([*paths, broken])
    assert 'on_error="report"' in str(error.value)
    absent = [tmp_path / f"{k}.mp4" for k in range(25)]
    with pytest.raises(DataError, match="25 videos cannot be used") as error:
        student.encode_videos([paths[0], *absent])
    assert f"{absent[0]}: missing" in str(error.value)
    assert "and 5 more" in str(error.value)


def test_with_a_status_of_each_the_others_are_not_lost(
    student: Encoder, paths: list[Path], vectors: np.ndarray, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    given = [paths[0], broken, *paths[1:], tmp_path / "none.mp4"]
    with pytest.raises(ValueError, match="not 'ignore'"):
        student.encode_videos(given, on_error="ignore")  # type: ignore[call-overload]
    made = student.encode_videos(given, on_error="report")
    assert isinstance(made, EncodedVideos)
    assert made.paths == tuple(map(str, paths))
    assert isinstance(made.vectors, np.ndarray)
    assert made.vectors.tobytes() == vectors.tobytes()
    assert [status.status for status in made.statuses] == ["ok", "corrupt", *["ok"] * 4, "missing"]
    assert [status.video for status in made.statuses] == list(map(str, given))
    assert all(status.reason for status in made.statuses if status.status != "ok")
    none = student.encode_videos(str(broken), on_error="report")
    assert (none.paths, len(none.statuses), none.vectors.shape) == ((), 1, (0, 64))


def test_a_run_chooses_frames_as_it_was_prepared(place: Any, student: Encoder) -> None:
    path, run = place.root / "own" / place.names[0], place.root / "work" / "runs" / "a"
    config = place.config()
    own = config.model_copy(update={"prepare": config.prepare.model_copy(update={"last_second": 1})})
    (run / "config.yaml").write_text(dump_config(own), encoding="utf-8")
    until = load(run, device="cpu")
    assert not np.array_equal(until.encode_videos(path), student.encode_videos(path))
    np.testing.assert_array_equal(load(run / "best.safetensors").encode_videos(path), student.encode_videos(path))


def test_what_is_wrong_is_told_in_words(place: Any, student: Encoder) -> None:
    torch.manual_seed(0)
    save_network(build_network(place.network(kind="xclip")), place.root / "xclip.safetensors")
    with pytest.raises(CheckpointError, match=r"kind xclip.*no single vector") as error:
        load(place.root / "xclip.safetensors")
    assert "load a student" in str(error.value)
    assert "--set" not in str(error.value)
    for wrong in ("gpu", "cuda:77"):
        with pytest.raises(ConfigError, match=f"no device '{wrong}'"):
            load(place.root / "work" / "runs" / "a", device=wrong)
    with pytest.raises(TypeError, match="sentences are str, and this is int"):
        student.encode_texts(["a", 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch_size is 0"):
        student.encode_texts(["a"], batch_size=0)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load("no/such/run")


def test_vectors_that_are_not_finite_are_refused(place: Any) -> None:
    def spoilt(run: str, change: Callable[[Any], None]) -> Encoder:
        network = load_network(place.root / "work" / "runs" / "a")
        change(network)
        save_network(network, place.root / run)
        return load(place.root / run, device="cpu")

    def huge(network: Any) -> None:
        network.trunk.text_projection.data.fill_(3e38)

    with pytest.raises(CheckpointError, match="not finite") as error:
        spoilt("huge.safetensors", huge).encode_texts(["a", "b"])
    assert "'a'" in str(error.value) or "a" in error.value.details


def test_longer_sentences_are_told_to_whoever_listens(place: Any, heard: Any) -> None:
    student = load(place.root / "work" / "runs" / "a", device="cpu", reporter=heard)
    long = "one two three four five six seven eight"
    student.encode_texts([long, f"{long} nine"])
    assert heard.warnings == [f"the model reads the first 8 tokens of a sentence; longer is '{long} nine'"]


def test_the_library_loads_no_command_line_and_no_search_index() -> None:
    seen = "import sys, teachclip\nteachclip.load, teachclip.Encoder\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True, timeout=200)
    names = done.stdout.split()
    assert teachclip.load is load
    assert [name for name in names if name.startswith(("teachclip.pipeline", "typer", "faiss", "zarr", "rich"))] == []
