"""What indexing a folder takes, beside bare decoding and bare encoding of the same frames.

    python benchmarks/index.py [VIDEOS] [--model MODEL] [--out index.json]

Without VIDEOS, clips are drawn: `--clips` of 20 seconds, one of 2 minutes, 640x360, 25 pictures a second. Without a
model, one of ViT-B/32's size with random weights.

decode   PyAV reads each file once from its beginning, on one thread; the chosen pictures are resized and cropped
encode   the trunk and the head on all frames, in the same lots
index    the stage, with one decoding process, the model loaded before, from an empty library to a finished one
again    once more, when nothing is to be done
half     of every other file, to see that the cost grows with the frames

The ratio is index / (decode + encode). They take turns `--repeats` times; medians.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from _machine import machine
from teachclip.cache.library.library import Library
from teachclip.configs.schema import NetworkConfig
from teachclip.stages.data.video.resize import resize_crop
from teachclip.stages.demo.write_h264 import write_h264
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.search.library import stage
from teachclip.stages.search.library.encoding import FRAMES_AT_ONCE
from teachclip.stages.search.library.models import load_model
from teachclip.stages.search.library.stage import index_videos

TRUNK = {"model": "ViT-B-32-quickgelu", "weights": None}


def drawn(folder: Path, clips: int) -> Path:
    random = np.random.default_rng(0)
    for k, seconds in enumerate([20] * clips + [120]):
        moving = random.integers(0, 255, (36, 64, 3), dtype=np.uint8)
        frames = np.stack([np.roll(moving, frame // 2, axis=1) for frame in range(25 * 20)])
        clip = np.repeat(np.repeat(frames, 10, 1), 10, 2)
        clip = np.concatenate([clip] * (seconds // 20))
        write_h264(folder / f"{k:03d}.mp4", clip, fps=25, preset="ultrafast", crf=28)
    return folder


def bare_decoding(path: str, times: list[float], size: int) -> list[np.ndarray]:
    """The pictures shown at `times`, as they are stored."""
    kept, wanted = [], iter(times)
    second = next(wanted, None)
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        first = None
        for frame in container.decode(video=0):
            first = frame.time if first is None else first
            if second is None:
                break
            if frame.time - first >= second - 1e-3:
                kept.append(resize_crop(frame.to_ndarray(format="rgb24"), size).transpose(2, 0, 1))
                second = next(wanted, None)
    return kept


@torch.inference_mode()
def bare_encoding(network: Any, frames: np.ndarray, windows: int) -> None:
    tokens = []
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        part = torch.from_numpy(frames[start : start + FRAMES_AT_ONCE])[None]
        tokens.append(network.class_tokens(part, torch.ones(part.shape[:2], dtype=torch.bool))[0])
    slots = network.config.frames
    every = torch.cat([torch.cat(tokens)] * (1 + windows * slots // len(frames)))[: windows * slots]
    network.encode_videos(every.view(windows, slots, -1), torch.ones(windows, slots, dtype=torch.bool))


def measured(videos: list[str], model: str, folder: Path) -> dict[str, Any]:
    loaded = load_model(model, torch.device("cpu"))
    stage.load_model = lambda *_: loaded  # type: ignore[assignment,misc]
    result: dict[str, Any] = {}
    for name, chosen in (("index", videos), ("half", videos[::2])):
        shutil.rmtree(folder, ignore_errors=True)
        began = time.perf_counter()
        made = index_videos(chosen, folder, model, device="cpu", workers=1)
        result[f"{name}_s"] = time.perf_counter() - began
        result[f"{name}_windows"] = made.windows
        if name == "index":
            began = time.perf_counter()
            index_videos(chosen, folder, device="cpu", workers=1)
            result["again_s"] = time.perf_counter() - began
            with Library.open(folder) as library:
                times = {
                    video.path: sorted({second for window in library.windows_of(video.path) for second in window.times})
                    for video in library.videos()
                    if video.status == "ok"
                }
    began = time.perf_counter()
    frames = [
        frame
        for path, seconds in times.items()
        for frame in bare_decoding(path, seconds, loaded.network.trunk.sizes.image_size)
    ]
    result["decode_s"] = time.perf_counter() - began
    stacked = np.stack(frames)
    began = time.perf_counter()
    bare_encoding(loaded.network, stacked, result["index_windows"])
    result["encode_s"] = time.perf_counter() - began
    result["frames"] = len(frames)
    result["ratio"] = result["index_s"] / (result["decode_s"] + result["encode_s"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="?", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = given.videos or drawn(root / "clips", given.clips)
        model = given.model
        if model is None:
            torch.manual_seed(0)
            model = str(root / "model.safetensors")
            save_network(build_network(NetworkConfig.model_validate({"trunk": TRUNK})), Path(model))
        videos = sorted(map(str, folder.rglob("*.mp4")))
        runs = [measured(videos, model, root / "index") for _ in range(given.repeats)]
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    result = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "videos": len(videos),
        "median": middle,
        "runs": runs,
    }
    if given.out:
        given.out.write_text(json.dumps(result, indent=1))
    print(f"{result['machine']}, {result['threads']} threads, load {result['load']:.1f}, {len(videos)} videos")
    for name, value in middle.items():
        print(f"{name:>14} {value:10,.2f}   {', '.join(f'{run[name]:,.2f}' for run in runs)}")


if __name__ == "__main__":
    main()
