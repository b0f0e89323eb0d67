"""Whether a change makes a training step slower: ViT-B/32's step here over that of another checkout, in one run.

    python benchmarks/step_ratio.py OTHER_CHECKOUT [--rounds 8] [--videos 4] [--frames 3]

Both train the same student (AFA, four temporal layers, random weights) on the same random frames and words, each in a
process of its own, one step at a time by turns; medians over rounds of seconds and of processor seconds, on one thread.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
WORKER = """
import sys, time, torch
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.stages.models.build import build_network
videos, frames = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.manual_seed(0)
network = build_network(NetworkConfig(trunk=TrunkConfig(weights=None), frames=frames)).train()
optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6)
pixels = torch.randint(0, 256, (videos, frames, 3, 224, 224), dtype=torch.uint8)
mask = torch.ones(videos, frames, dtype=torch.bool)
ids = torch.randint(1, 49000, (videos, 32))
ids[:, 20], ids[:, 21:] = 49407, 0
for _ in sys.stdin:
    wall, spent = time.perf_counter(), time.process_time()
    optimiser.zero_grad()
    logits = network.logit_scale.exp() * network.score(network.encode_texts(ids), network.encode_videos(pixels, mask))
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(videos))
    loss.backward()
    optimiser.step()
    print(time.perf_counter() - wall, time.process_time() - spent, loss.item(), flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--videos", type=int, default=4)
    parser.add_argument("--frames", type=int, default=3)
    given = parser.parse_args()
    checkouts = {"other": given.other.resolve(), "here": HERE}
    workers = {name: _worker(path, given.videos, given.frames) for name, path in checkouts.items()}
    steps: dict[str, list[list[float]]] = {name: [] for name in workers}
    for number in range(given.rounds + 1):
        for name in list(workers) if number % 2 else list(workers)[::-1]:
            worker = workers[name]
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("step\n")
            worker.stdin.flush()
            said = [float(value) for value in worker.stdout.readline().split()]
            if number:  # the first warms up
                steps[name].append(said)
    for worker in workers.values():
        worker.communicate()
    for column, title in enumerate(("seconds", "processor seconds")):
        other, here = ([step[column] for step in steps[name]] for name in ("other", "here"))
        ratio = statistics.median(b / a for a, b in zip(other, here, strict=True))
        print(f"{title}: other {statistics.median(other):.3f}, here {statistics.median(here):.3f}, ratio {ratio:.3f}")
    print("losses are the same" if [s[2] for s in steps["other"]] == [s[2] for s in steps["here"]] else "losses differ")


def _worker(checkout: Path, videos: int, frames: int) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(checkout / ".typing")}
    command = [sys.executable, "-c", WORKER, str(videos), str(frames)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    )


if __name__ == "__main__":
    main()
