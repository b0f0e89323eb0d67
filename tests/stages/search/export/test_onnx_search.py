"""examples/onnx_search.py, where torch cannot be imported: the same ids, the same ten windows."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachclip.cache.library.rows import Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.clip.tokenizers import ClipTokenizer
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.exported.export import export_model
from teachclip.stages.models.named import named_model
from teachclip.stages.search.export.stage import export_index
from teachclip.stages.search.index_search import search_index

from ..conftest import NETWORK
from .conftest import unit

SCRIPT = Path(__file__).resolve().parents[4] / "examples" / "onnx_search.py"
SENTENCES = [
    "a dog runs on the beach",
    "It’s 2 &amp; 3 o'clock — “déjà vu”, straße!!! <|endoftext|> they'll",
    "ein sehr langer Satz, der nach wenigen Worten endet, weil mehr nicht gelesen wird",
]
ALONE = """
import runpy, sys
sys.modules |= dict.fromkeys(("torch", "teachclip", "ftfy"))  # importing them is an ImportError
runpy.run_path({!r}, run_name="__main__")
"""


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: the extra onnx")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    needs_onnx()
    found = importlib.util.spec_from_file_location("onnx_search", SCRIPT)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tokenizer(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("words")
    ClipTokenizer().save(folder)
    return script.Tokenizer(folder, 20)


def same_ids(tokenizer: Any, sentence: str) -> None:
    ids = tokenizer([sentence])
    expected = tokenize([sentence], 20)[0].numpy()
    np.testing.assert_array_equal(ids, expected[:, : ids.shape[1]])
    assert not expected[:, ids.shape[1] :].any()


@pytest.mark.parametrize("sentence", [*SENTENCES, "", "1½ x² ٣ 三 नमस्ते\u200b", "'S 're <|STARTOFTEXT|> _a_ #b"])
def test_ids_are_ours(tokenizer: Any, sentence: str) -> None:
    same_ids(tokenizer, sentence)


@settings(deadline=None, max_examples=200)
@given(sentence=st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f"), max_size=40))
def test_ids_of_any_sentence_of_latin_letters_are_ours(tokenizer: Any, sentence: str) -> None:
    same_ids(tokenizer, sentence)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, its towers, an index of 40 clips of one window, and its vectors in a file."""
    needs_onnx()
    root = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    save_network(build_network(NetworkConfig.model_validate(NETWORK)), root / "run/best.safetensors")
    (root / "clips").mkdir()
    model = Model(str(root / "run"), named_model(root / "run").digest, 64, 4)
    with LibraryWriter.claim(root / "index", model) as writer:
        for k in range(40):
            path = root / "clips" / f"{k}.mp4"
            path.touch()
            window = NewWindow(0.0, 4.0, np.arange(4.0), None, unit(k, 64))
            writer.keep(Video(0, str(path), 10, 1, k.to_bytes(16), 4.0, "ok", "", 1), [window])
        writer.finish()
    export_index(root / "index", str(root / "vectors.npy"))
    export_model(str(root / "run"), root / "exported")
    return root


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(root / "exported"), str(root / "vectors.npy"), *words]
    return subprocess.run(
        [sys.executable, "-c", ALONE.format(str(SCRIPT)), *arguments], capture_output=True, text=True, timeout=240
    )


def test_the_ten_best_are_ours(place: Path) -> None:
    done = run(place, *SENTENCES, "--top", "10")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            found[next(reversed(found))].append(int(line.split()[1]))
        else:
            found[line] = []
    ours = search_index(place / "index", SENTENCES, 10, device="cpu")
    assert found == {each.query: [answer.id for answer in each.answers] for each in ours.queries}
    assert {len(each) for each in found.values()} == {10}


def test_vectors_of_another_width_are_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "exported").symlink_to(place / "exported")
    np.save(tmp_path / "vectors.npy", np.zeros((3, 8), np.float32))
    done = run(tmp_path, "a dog")
    assert done.returncode == 1
    assert "8 numbers a vector, the model 64" in done.stderr
