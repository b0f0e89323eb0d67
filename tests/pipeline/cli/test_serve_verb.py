"""`teachclip serve` on the command line: what it refuses, each in one clear message, and how it begins and ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from teachclip.errors import ConfigError
from teachclip.pipeline.cli import serve
from teachclip.pipeline.serve.access import Access
from teachclip.pipeline.serve.server import token_of

type Invoke = Callable[..., Any]


def refused(invoke: Invoke, *words: str) -> str:
    """What it says."""
    result = invoke("serve", *words)
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    assert "unexpected" not in result.output
    text: str = result.output
    return " ".join(text.split())


def test_a_folder_that_is_no_index(invoke: Invoke, tmp_path: Path) -> None:
    said = refused(invoke, str(tmp_path), "--port", "0")
    assert f"{tmp_path}: there is no index here" in said
    assert "teachclip index VIDEOS --model MODEL --out" in said
    assert "there is no index here" in refused(invoke, str(tmp_path / "nothing"), "--port", "0")


def test_a_port_that_is_in_use(invoke: Invoke, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(invoke, str(tmp_path), "--port", str(port))
    assert f"127.0.0.1:{port}: this port is in use" in said
    assert f"--port {port + 1}" in said


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--host", "0.0.0.0"), "must know its own name"),
        (("--host", "0.0.0.0", "--name", "here"), "it takes a token"),
        (("--host", "203.0.113.7"), "no address of this machine"),
        (("--host", "no such name"), "no such address"),
    ],
)
def test_addresses(invoke: Invoke, tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    assert what in refused(invoke, str(tmp_path), "--port", "0", *words)


def test_a_missing_extra_is_named(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "NEEDED", {"no_such_module": "no-such-package"})
    said = refused(invoke, str(tmp_path))
    assert "serve needs no-such-package, which is not installed" in said
    assert "pip install 'teachclip[serve]'" in said


@pytest.mark.parametrize("line", re.findall(r"teachclip (serve .*)", serve.EXAMPLES))
def test_examples(line: str, invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come as far as the server, which ends as by Ctrl-C."""
    (folder / "demo").mkdir(exist_ok=True)
    (folder / "demo/demo.yaml").touch()
    listened: list[tuple[str, int]] = []

    def bound(host: str, port: int) -> socket.socket:
        listened.append((host, port))
        return socket.create_server(("127.0.0.1", 0))

    def ended(sockets: object) -> None:
        raise KeyboardInterrupt

    class Library:
        model = SimpleNamespace(name="runs/taught")

        def __len__(self) -> int:
            return 7

    index = SimpleNamespace(library=Library(), lacking=None)
    monkeypatch.setattr("teachclip.pipeline.serve.server.bound", bound)
    monkeypatch.setattr("teachclip.pipeline.serve.app.application", lambda *_: None)
    monkeypatch.setattr("teachclip.pipeline.serve.server.server", lambda _: SimpleNamespace(run=ended))
    monkeypatch.setattr(serve, "_opened", lambda *_: nullcontext(index))
    words = line.split()
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    host = words[words.index("--host") + 1] if "--host" in words else "127.0.0.1"
    assert listened == [(host, int(words[words.index("--port") + 1]) if "--port" in words else 8765)]
    assert f"address  http://{host}:" in result.stdout
    assert ("token    in token" in result.stdout) is ("--token-file" in words) is (folder / "token").is_file()


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = token_of("0.0.0.0", file)
    assert made is not None
    assert len(made) > 30
    assert file.stat().st_mode & 0o777 == 0o600
    assert token_of("127.0.0.1", file) == made
    assert token_of("127.0.0.1", None) is token_of("::1", None) is None
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read"):
        token_of("0.0.0.0", file)
    file.chmod(0o600)
    file.write_text("short")
    with pytest.raises(ConfigError, match="shorter than 16"):
        token_of("0.0.0.0", file)
    with pytest.raises(ConfigError, match="no token can be written"):
        token_of("0.0.0.0", tmp_path / "nowhere/token")


def test_names_that_are_answered_to() -> None:
    assert Access.of("127.0.0.1", 8765).hosts == {"127.0.0.1:8765", "localhost:8765", "[::1]:8765"}
    assert Access.of("192.168.1.5", 80, ["Clips.example"]).hosts == {
        *("192.168.1.5:80", "192.168.1.5", "clips.example:80", "clips.example"),
    }


def test_it_begins_says_where_and_ends(world: Any, tmp_path: Path) -> None:
    """A demo that has no student yet: the page says what to do; Ctrl-C is how it ends."""
    settings = tmp_path / "demo.yaml"
    settings.write_text(
        f"work: {tmp_path / 'work'}\ndata: {{captions: {world.root / 'captions.csv'}}}\nsearch: {{run: runs/none}}\n"
    )
    command = [sys.executable, "-m", "teachclip", "serve", str(tmp_path), "--port", "0", "--json"]
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        assert running.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = running.stdout.readline()
            assert line, running.stderr.read() if running.stderr else ""
            text += line
        said = json.loads(text)
        with urllib.request.urlopen(said["address"], timeout=120) as answer:
            page = answer.read().decode()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    assert "runs/none" in page
    assert "there is no trained student yet" in page
    assert f"let the demo come to its end first: teachclip demo {tmp_path}" in page
    assert running.returncode == 0, err
    assert "Traceback" not in err
    assert said["windows"] == 0
