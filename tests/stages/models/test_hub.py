"""Models and weights of the hub: what happens without a network. Nothing is fetched from anywhere."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
from teachclip.configs.schema import PixelConfig, TrunkConfig
from teachclip.errors import CheckpointError, ConfigError, TeachclipError, UnreachableError
from teachclip.stages.models.clip import hub
from teachclip.stages.models.clip.catalog import resolved, weights_file
from teachclip.stages.models.clip.loading import build_trunk

MODEL = "ViT-B-32-quickgelu"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of the hub's."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture(params=["nobody", "silent", "no such name", "broken", "sent away"])
def out_of_reach(request, monkeypatch) -> Iterator[str]:
    """A hub that cannot be reached, in one of five ways."""
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    at = f"http://127.0.0.1:{closed.getsockname()[1]}"
    stop, over = None, threading.Event()
    if request.param == "silent":
        closed.listen()
    elif request.param == "no such name":
        at = "http://no-such-name.invalid"
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: _unknown(over))
    elif request.param in ("broken", "sent away"):
        server = HTTPServer(("127.0.0.1", 0), _Broken if request.param == "broken" else _SendingAway)
        at, stop = f"http://127.0.0.1:{server.server_port}", server.shutdown
        threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", at)
    yield at
    over.set()
    closed.close()
    if stop is not None:
        stop()
        server.server_close()


def _unknown(over: threading.Event) -> None:
    """A name server that thinks for longer than anybody waits."""
    over.wait(200)
    raise socket.gaierror("name or service not known")


class _Broken(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _SendingAway(_Broken):
    """The hub answers, and what keeps its large files does not."""

    def do_HEAD(self) -> None:
        self.send_response(302 if "/resolve/" in self.path else 200)
        self.send_header("Location", "http://127.0.0.1:9/file")
        self.end_headers()


@pytest.mark.parametrize(
    ("trunk", "said"),
    [
        ({"model": MODEL, "weights": "openai"}, "the weights 'openai' of ViT-B-32-quickgelu cannot be downloaded"),
        ({"model": "ViT-B-32", "weights": "laion2b_s34b_b79k"}, "cannot be downloaded"),
        ({"model": "hf-hub:someone/clip"}, "hf-hub:someone/clip cannot be looked up"),
        ({"model": MODEL, "weights": "hf-hub:someone/clip"}, "fetch its file, and name the file here"),
    ],
)
def test_without_a_network_it_ends_in_words_and_waits_for_nobody(out_of_reach, trunk, said, capfd) -> None:
    start = time.monotonic()
    with pytest.raises(TeachclipError) as refusal:
        build_trunk(TrunkConfig(**trunk))
    assert time.monotonic() - start < 60  # four seconds, on a machine that has nothing else to do
    assert said in str(refusal.value)
    assert isinstance(refusal.value, ConfigError) or out_of_reach in str(refusal.value)
    assert capfd.readouterr() == ("", "")


def test_the_hubs_own_word_for_offline_is_heeded(monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        build_trunk(TrunkConfig(model=MODEL, weights="openai"))
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE is set"):
        _named("hf-hub:someone/clip")


def _named(model: str) -> TrunkConfig:
    return resolved(TrunkConfig(model=model, weights=None))


def _keep(cache: Path, repository: str, name: str, content: str) -> Path:
    """Write a file as the hub's library keeps it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    file = folder / "snapshots" / "abc" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_what_was_fetched_before_is_used_without_asking(cache, monkeypatch, name) -> None:
    monkeypatch.setattr(hub, "_ask", lambda *_: pytest.fail("asked"))
    config = TrunkConfig(model=MODEL, weights="openai")
    source = open_clip.get_pretrained_cfg(MODEL, "openai")["hf_hub"]
    file = _keep(cache, source.rstrip("/"), name, "weights")
    assert weights_file(resolved(config)) == file


def test_a_model_of_the_hub_that_is_here_is_described_without_asking(cache, monkeypatch) -> None:
    monkeypatch.setattr(hub, "_ask", lambda *_: pytest.fail("asked"))
    described = (Path(open_clip.__file__).parent / "model_configs" / "ViT-B-16.json").read_text()
    _keep(cache, "someone/clip", "open_clip_config.json", f'{{"model_cfg": {described}}}')
    found = _named("hf-hub:someone/clip")
    assert (found.sizes, found.pixels) == (_named("ViT-B-16").sizes, PixelConfig())
    pixels = '"preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "resize_mode": "squash", "fill_color": 0}'
    _keep(cache, "someone/squashed", "open_clip_config.json", f'{{"model_cfg": {described}, {pixels}}}')
    squashed = PixelConfig(mean=(0.5, 0.5, 0.5), resize_mode="squash")
    assert _named("hf-hub:someone/squashed").pixels == squashed
    _keep(cache, "someone/else", "open_clip_config.json", "{}")
    with pytest.raises(ConfigError, match=r"someone/else is no model of open_clip's[\s\S]*describes no CLIP"):
        _named("hf-hub:someone/else")
    with pytest.raises(ConfigError, match="is no model"):
        _named("hf-hub:no such/name/at all")


def test_the_librarys_log_speaks_again_afterwards(monkeypatch, caplog) -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")

    def chatty(*_: object) -> str:
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("gone")

    monkeypatch.setattr(hub, "_ask", lambda *_: None)
    monkeypatch.setattr(open_clip, "download_pretrained", chatty)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    with pytest.raises(CheckpointError, match="gone"):
        build_trunk(TrunkConfig(model=MODEL, weights="openai"))
    assert "Retrying" not in caplog.text
    logger.warning("afterwards")
    assert "afterwards" in caplog.text
