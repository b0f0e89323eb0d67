"""Two machines train together, each with an agent of torchrun's; one is killed and comes back."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from teachclip.configs.loading import dump_config
from teachclip.stages.runtime.run_folder import RunFolder

STEPS = 600


def agent(config: Path, port: int, said: Path, first: bool = False) -> "subprocess.Popen[bytes]":
    """What is started on each machine; the first hosts the meeting place."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--max-restarts=3"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=run"),
        f"--rdzv-conf=timeout=300,is_host={int(first)}",
        *("-m", "teachclip", "train", str(config)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with said.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def awaited(what: Callable[[], bool], agents: list["subprocess.Popen[bytes]"]) -> None:
    until = time.monotonic() + 240
    while not what():
        assert time.monotonic() < until
        assert all(one.poll() is None for one in agents)
        time.sleep(0.05)


def kill_machine(one: "subprocess.Popen[bytes]") -> None:
    """An agent with all that it started, whose sessions are their own."""
    found = [one.pid]
    for number in found:
        for children in Path(f"/proc/{number}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    for number in found:
        os.kill(number, signal.SIGKILL)
    one.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_machine_that_dies_and_comes_back_goes_on_with_the_other(world: Any, tmp_path: Path) -> None:
    """As examples/cluster starts them: the other machine's agent stays and starts its process again."""
    settings = {
        "run": "runs/of-two-machines", "teachers": ["xclip"], "epochs": 10_000, "max_steps": STEPS,
        "checkpoint_seconds": 0.2, "validate_every": 50, "tensorboard": False,
    }  # fmt: skip
    config, said = world.config(train=settings), [tmp_path / f"agent-{k}.txt" for k in range(2)]
    (tmp_path / "own.yaml").write_text(dump_config(config))
    run = RunFolder(config.run_folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    agents = [agent(tmp_path / "own.yaml", port, each, each is said[0]) for each in said]
    try:
        awaited(lambda: bool(run.states), agents)
        kill_machine(agents.pop())
        agents.append(agent(tmp_path / "own.yaml", port, said[1]))
        codes = [one.wait(600) for one in agents]
    finally:
        for one in agents:
            if one.poll() is None:
                kill_machine(one)
    told = [each.read_text() for each in said]
    assert codes == [0, 0], "\n".join(each[-3000:] for each in told)
    lines = [json.loads(line) for line in (config.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert "goes on at step" in told[0]
