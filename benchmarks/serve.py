"""What a page's server answers with, and how soon, while others ask and while the index is written to.

    python benchmarks/serve.py [--windows 50000] [--width 512] [--seconds 10] [--out serve.json]

`teachclip serve` runs in a process of its own over random vectors and a student of two layers whose weights are random,
so that times are the server's and the index's, not a network's. Clients are threads of this process with a connection
each; every one asks for sentences, one after another, as fast as it is answered. `written`: meanwhile another process
puts 1 video of 3 windows into the index every 50 ms. Milliseconds are those that a client waits; `core ms`: what the
server computed for an answer, which other work on the machine does not change.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from teachclip.cache.library.rows import UNKNOWN, Model, NewWindow, Video
from teachclip.cache.library.writer import LibraryWriter
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import network_digest, save_network

CLIENTS = (1, 8, 32)
PER_VIDEO = 50
WORDS = ["a", "the", "red", "blue", "dog", "cat", "man", "woman", "runs", "cooks", "plays", "beach", "street"]


def put(writer: LibraryWriter, path: Path, vectors: np.ndarray) -> None:
    """A video with a window a vector."""
    path.touch()
    times, weights = np.arange(12) * 2.5, np.full(12, 1 / 12)
    windows = [NewWindow(15.0 * k, 15.0 * k + 30, times, weights, row) for k, row in enumerate(vectors)]
    writer.keep(Video(0, str(path), 0, 0, UNKNOWN, 15.0 * len(vectors), "ok", "", 2), windows)


def unit(random: np.random.Generator, count: int, width: int) -> np.ndarray:
    rows = random.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made(root: Path, count: int, width: int) -> Model:
    """An index of `count` windows, and the student that can be asked about them."""
    sizes = {"image_size": 32, "patch_size": 16, "vision_width": 64, "vision_layers": 1, "text_width": 64,
             "text_layers": 2, "embed_dim": width, "context_length": 32}  # fmt: skip
    trunk = {"sizes": sizes, "weights": None}
    network = build_network(NetworkConfig.model_validate({"trunk": trunk, "words": 32, "temporal_layers": 1}))
    save_network(network, root / "student.safetensors")
    model = Model(str(root / "student.safetensors"), network_digest(network), width, 12)
    random = np.random.default_rng(0)
    (root / "clips").mkdir()
    with LibraryWriter.claim(root / "index", model) as writer:
        writer.add_roots([root / "clips"])
        for k in range(count // PER_VIDEO):
            put(writer, root / f"clips/{k:06d}.mp4", unit(random, PER_VIDEO, width))
        writer.finish()
    return model


@contextmanager
def served(index: Path) -> Iterator[tuple[int, int]]:
    """Port and process of a server."""
    command = [sys.executable, "-m", "teachclip", "serve", str(index), "--port", "0", "--json", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        text = ""
        while not text.rstrip().endswith("}"):
            line = running.stdout.readline()
            if not line:
                raise SystemExit("the server did not start")
            text += line
        try:
            yield int(json.loads(text)["address"].rstrip("/").rsplit(":", 1)[1]), running.pid
        finally:
            running.terminate()
            running.wait()


def computed(process: int) -> float:
    """Seconds that a process has had of a core."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def asked(port: int, process: int, clients: int, seconds: float) -> dict[str, Any]:
    """Milliseconds that clients waited, those of a core that an answer took, and what was no answer."""
    before = computed(process)
    waited: list[float] = []
    wrong: list[int] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        random = np.random.default_rng(number)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            sentence = "%20".join(random.choice(WORDS, 6))
            began = time.perf_counter()
            connection.request("GET", f"/api/search?q={sentence}&top=12")
            answer = connection.getresponse()
            body = answer.read()
            waited.append(1000 * (time.perf_counter() - began))
            if answer.status != 200 or len(json.loads(body)["answers"]) != 12:
                wrong.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(waited, (50, 99))
    return {
        "clients": clients,
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "core_ms": round(1000 * (computed(process) - before) / len(waited), 1),
        "a_second": round(len(waited) / seconds, 1),
        "asked": len(waited),
        "wrong": len(wrong),
    }


def write_on(root: Path, width: int) -> None:
    """Put videos into the index until killed."""
    random = np.random.default_rng(int(time.time()))
    model = Model(**json.loads((root / "model.json").read_text()))
    with LibraryWriter.claim(root / "index", model) as writer:
        for k in range(1_000_000):
            put(writer, root / f"clips/new-{k}.mp4", unit(random, 3, width))
            time.sleep(0.05)


def measured(root: Path, windows: int, width: int, seconds: float) -> list[dict[str, Any]]:
    model = made(root, windows, width)
    (root / "model.json").write_text(json.dumps(vars(model)))
    rows = []
    with served(root / "index") as (port, process):
        asked(port, process, 1, 1.0)
        rows += [{"written": False, **asked(port, process, clients, seconds)} for clients in CLIENTS]
        command = [sys.executable, __file__, "--write", str(root), "--width", str(width)]
        with subprocess.Popen(command) as writer:
            time.sleep(3)
            rows += [{"written": True, **asked(port, process, clients, seconds)} for clients in CLIENTS]
            writer.kill()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.write:
        write_on(given.write, given.width)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="teachclip-serve-") as folder:
        rows = measured(Path(folder), given.windows, given.width, given.seconds)
    print(f"{machine()}; load before {load:.1f}; {given.windows:,} windows of {given.width} numbers")
    print("clients  written   p50 ms   p99 ms  core ms  a second   asked  wrong")
    for row in rows:
        times = f"{row['p50_ms']:>7}  {row['p99_ms']:>7}  {row['core_ms']:>7}  {row['a_second']:>8}"
        written = "yes" if row["written"] else "no"
        print(f"{row['clients']:>7}  {written:>7}  {times}  {row['asked']:>6}  {row['wrong']:>5}")
    if given.out:
        settings = {"windows": given.windows, "width": given.width, "seconds": given.seconds}
        given.out.write_text(
            json.dumps({"machine": machine(), "load": load, **settings, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
