"""Where the tests find their material."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Before torch is imported, here and in processes that tests start: one thread each, since pytest-xdist keeps the cores
# busy and the last bits of a product depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# A run in the background (nohup, `&`) ignores these, and the processes that tests stop with them would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, annotations and scores; tests that need it skip without it."""
    folder = Path(os.environ.get("TEACHCLIP_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data at {folder}: set TEACHCLIP_SHARED to run this test")
    return folder


@dataclass(frozen=True)
class Bucket:
    """A bucket on a real S3 server, and how to meddle with it."""

    port: int
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def request(self, method: str, key: str = "", data: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=owner/20260101/us-east-1/s3/aws4_request"}
        connection.request(method, f"/{self.name}/{key}" if key else f"/{self.name}", data, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert answer.status < 300, (method, key, answer.status, body)
        return body

    def put(self, folder: Path, below: str) -> None:
        """Every file of a local folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.request("PUT", f"{below}/{path.relative_to(folder)}", path.read_bytes())


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of an S3 server in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


@pytest.fixture
def bucket(s3_server: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket; the environment says where its server is and who asks."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_server}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    made = Bucket(s3_server, f"bucket-{abs(hash(request.node.nodeid)):x}")
    made.request("PUT")
    return made


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need CUDA skip without it, and say so."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA, which torch does not see here: run `make test-gpu` on a machine with a GPU")
