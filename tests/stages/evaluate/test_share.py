"""Models shared by name: what is pushed, what others load, and what is told where a hub refuses or is not there."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from teachclip.errors import CheckpointError, ConfigError, UnreachableError
from teachclip.stages.evaluate.share import share
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.models.checkpoints.files import checkpoint_digest, checkpoint_file, load_network, network_digest
from teachclip.stages.models.checkpoints.shared import FILE
from teachclip.stages.models.named import named_model
from teachclip.stages.train.stage import train

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Stands in for the hub: repositories of one commit, by what its own library asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files: dict[str, dict[str, bytes]] = {}
        self.refuses = False
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def as_json(self, value: Any, code: int = 200) -> None:
        self.answer(code, json.dumps(value).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if found is None:
            self.as_json({"sha": COMMIT, "id": "a/b", "siblings": []})
            return
        repository, revision, file = found.groups()
        files = self.server.files.get(repository)
        if files is None:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif file not in files:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            self.answer(200, files[file], X_Repo_Commit=COMMIT, ETag=f'"{hash(files[file]) & 0xFFFFFFFF:x}"')

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refuses:
            self.as_json({"error": "Forbidden: you may not write here"}, 403)
        elif self.path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            self.server.files.setdefault(name, {})
            self.as_json({"url": f"{self.server.url}/{name}", "id": name})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            plain = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in asked]
            self.as_json({"files": plain})
        elif "/commit/" in self.path:
            repository = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.server.files[repository][value["path"]] = base64.b64decode(value["content"])
            self.as_json({"commitOid": COMMIT, "commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}"})
        else:
            self.as_json({})

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine, to which the library's real client speaks; its cache is empty."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    for name, value in (
        ("ENDPOINT", server.url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_CACHE", str(tmp_path / "hub")),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
    ):
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api, "ENDPOINT", server.url, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def run(world: Any) -> Path:
    """A run that was measured."""
    train(world.config(train={"run": "runs/shared", "max_steps": 2, "teachers": ["xclip"], "tensorboard": False}))
    evaluate(world.config(evaluate={"run": "runs/shared"}))
    return Path(world.root / "work/runs/shared")


def test_what_is_pushed_is_loaded_by_its_name(hub: Hub, run: Path, world: Any, tmp_path: Path) -> None:
    done = share(run, "me/video-search", tmp_path / "out", license="mit")
    assert (done.name, done.pushed) == ("hf:me/video-search", f"{hub.url}/me/video-search")
    assert set(hub.files["me/video-search"]) == {FILE, "config.json", "README.md"}
    digest = network_digest(load_network(run))
    assert network_digest(load_network(Path("hf:me/video-search"))) == digest
    assert network_digest(load_network(Path(f"hf:me/video-search@{COMMIT}"))) == digest
    assert named_model("hf:me/video-search").digest == digest
    assert named_model("hf:me/video-search@16").digest == f"{digest}@16"
    shared = evaluate(world.config(evaluate={"run": "hf:me/video-search"}))
    assert shared.t2v == evaluate(world.config(evaluate={"run": "runs/shared"})).t2v
    hub.shutdown()
    hub.server_close()
    assert named_model("hf:me/video-search").digest == digest, "what was fetched before needs no network"


def test_a_commands_model_stays_the_one_that_it_asked_for(hub: Hub, run: Path, world: Any, tmp_path: Path) -> None:
    share(run, "me/twice", tmp_path / "out")
    hub.asked.clear()
    first = checkpoint_file(Path("hf:me/twice"))
    asked = len(hub.asked)
    assert asked
    hub.files["me/twice"][FILE] = b"pushed by somebody meanwhile"
    assert checkpoint_file(Path("hf:me/twice")) == first
    assert len(hub.asked) == asked
    assert checkpoint_file(Path(f"hf:me/twice@{COMMIT}")) == first
    assert len(hub.asked) == asked, "a commit that is here is not asked for"


def test_a_run_remembers_which_shared_model_it_began_from(hub: Hub, run: Path, world: Any, tmp_path: Path) -> None:
    share(run, "me/begin", tmp_path / "out")
    settings = {"run": "runs/from-shared", "init": "hf:me/begin", "max_steps": 1, "teachers": [], "tensorboard": False}
    train(world.config(train=settings))
    said = json.loads((world.root / "work/runs/from-shared/run.json").read_text())
    assert checkpoint_digest(run) in json.dumps(said)


def test_the_card_says_what_it_is_and_nothing_of_this_machine(hub: Hub, run: Path, world: Any, tmp_path: Path) -> None:
    done = share(
        run,
        "me/video-search",
        tmp_path / "out",
        license="mit",
        licenses={"data": "CC-BY-4.0"},
        use=["use it"],
        push=False,
    )
    assert done.unlicensed == ("xclip",)
    assert hub.asked == []
    text = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    measured = json.loads((run / "evaluation-test.json").read_text())
    assert front["license"] == "mit"
    metrics = {each["type"]: each["value"] for each in front["model-index"][0]["results"][0]["metrics"]}
    assert metrics["r1"] == pytest.approx(measured["t2v"]["r1"], abs=0.005)
    assert "| data | captions: 28, videos: 14 | CC-BY-4.0 |" in text
    assert "| xclip | teacher | not known to teachclip" in text
    low, high = (measured["confidence"]["t2v"]["r1"][end] for end in ("low", "high"))
    assert f"({low:.1f} to {high:.1f})" in text
    assert "```bash\nuse it\n```" in text
    for file in (tmp_path / "out").iterdir():
        assert str(world.root).encode() not in file.read_bytes(), file.name


def test_a_checkpoint_alone_is_shared_too(hub: Hub, run: Path, tmp_path: Path) -> None:
    share(run / "best.safetensors", "me/plain", tmp_path / "out")
    assert "It was not measured" in hub.files["me/plain"]["README.md"].decode()
    assert named_model("hf:me/plain").digest == network_digest(load_network(run))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:me/nothing", "no such repository"),
        ("hf:me/video-search@v9", "no revision v9"),
        ("hf:me/empty", f"no {FILE}"),
        ("hf:a/b/c", "no name of a repository"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(hub: Hub, name: str, message: str) -> None:
    hub.files |= {"me/video-search": {FILE: b""}, "me/empty": {}}
    with pytest.raises(CheckpointError, match=message):
        load_network(Path(name))


def test_the_other_spelling_is_answered_with_the_right_one(hub: Hub) -> None:
    with pytest.raises(CheckpointError) as told:
        named_model("hf-hub:me/video-search")
    assert "named hf:me/video-search" in str(told.value.hint)


def test_a_hub_that_is_not_there(hub: Hub, run: Path, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UnreachableError, match="cannot be reached") as told:
        load_network(Path("hf:me/video-search"))
    assert "name the file" in str(told.value.hint)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        share(run, "me/video-search", tmp_path / "out")
    assert (tmp_path / "out" / FILE).exists()


def test_a_hub_that_refuses(hub: Hub, run: Path, tmp_path: Path) -> None:
    hub.refuses = True
    with pytest.raises(UnreachableError, match="the hub refuses") as told:
        share(run, "somebody/else", tmp_path / "out")
    assert "hf auth login" in str(told.value.hint)


def test_names_and_licences_that_are_none(run: Path, tmp_path: Path) -> None:
    for name in ("video-search", "me/a b", "hf:a/b/c"):
        with pytest.raises(ConfigError, match="no repository's name"):
            share(run, name, tmp_path / "out", push=False)
    with pytest.raises(ConfigError, match="not made from drl") as told:
        share(run, "me/x", tmp_path / "out", licenses={"drl": "mit"}, push=False)
    assert "data, xclip" in str(told.value.hint)
    assert not (tmp_path / "out").exists()
