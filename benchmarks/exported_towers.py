"""What exported towers cost and find: torch beside onnxruntime, on one core.

    python benchmarks/exported_towers.py [--repeats 20] [--out exported-towers.json]
    python benchmarks/exported_towers.py --folder bench-teaching --draw 2024:1

Bytes of each tower, and milliseconds that a core computes for one sentence and for one video of 12 frames, the median,
of a student with the trunk ViT-B/32 (random weights: they change no time). With FOLDER and DRAW it is the students of
small_vectors.py, and SumR text to video on the test clips, too. `torch` is teachclip itself.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import torch
from _machine import machine
from _teaching_data import OWN, Draw, World
from _test_split import TestSplit, Vectors
from small_vectors import students
from teachclip.configs.schema import NetworkConfig, TrunkConfig
from teachclip.stages.models.build import build_network
from teachclip.stages.models.checkpoints.files import save_network
from teachclip.stages.models.exported.export import export_model
from teachclip.stages.models.exported.towers import Precision
from teachclip.stages.models.named import NamedModel, named_model

SENTENCE = "a dog runs on the beach"
type Towers = tuple[Callable[[np.ndarray], Vectors], Callable[[np.ndarray, np.ndarray], Vectors]]


def by_torch(model: NamedModel) -> Towers:
    def text(ids: np.ndarray) -> Vectors:
        with torch.inference_mode():
            return model.network.encode_texts(torch.from_numpy(ids))["vector"].numpy()

    def video(frames: np.ndarray, mask: np.ndarray) -> Vectors:
        with torch.inference_mode():
            return model.network.encode_videos(torch.from_numpy(frames), torch.from_numpy(mask))["vector"].numpy()

    return text, video


def by_onnxruntime(folder: Path) -> Towers:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = {
        name: onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("text", "video")
    }
    return (
        lambda ids: session["text"].run(None, {"ids": ids})[0],
        lambda frames, mask: session["video"].run(None, {"frames": frames, "mask": mask})[0],
    )


def exported(model: str, place: Path) -> dict[Precision, Path]:
    """Folders with the towers of a model by way."""
    ways: dict[Precision, Path] = {}
    for precision in ("float32", "float16", "int8"):
        ways[precision] = place / precision
        export_model(model, ways[precision], precision=precision)
    return ways


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """What a core computed, the median: others that want the core, too, make it no longer, or little."""
    run()
    took = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return 1e3 * statistics.median(took)


def measured(run: str, split: TestSplit | None, repeats: int) -> dict[str, dict[str, Any]]:
    """Per way bytes and milliseconds of each tower, and SumR where there is a test split."""
    model = named_model(run)
    config, size = model.network.config, model.network.trunk.image_size
    ids = model.tokenize([SENTENCE])[0].numpy()
    frames = np.random.default_rng(0).integers(0, 256, (1, config.frames, 3, size, size), np.uint8)
    mask = np.ones((1, config.frames), bool)
    with tempfile.TemporaryDirectory() as place:
        folders = exported(run, Path(place))
        ways = {"torch": by_torch(model)} | {f"ONNX {way}": by_onnxruntime(path) for way, path in folders.items()}
        found: dict[str, dict[str, Any]] = {}
        for way, (text, video) in ways.items():
            found[way] = {
                "text ms": milliseconds(lambda text=text: text(ids), repeats),
                "video ms": milliseconds(lambda video=video: video(frames, mask), repeats),
            }
            if folder := folders.get(way.removeprefix("ONNX ")):
                sizes = {f"{each} MB": (folder / f"{each}.onnx").stat().st_size / 1e6 for each in ("text", "video")}
                found[way] |= sizes
            if split:
                texts = text(model.tokenize(split.captions)[0].numpy())
                found[way]["SumR"] = split.sumr(texts @ split.videos(video).T)
    return found


def random_student(folder: Path) -> str:
    """A student of default sizes, ViT-B/32."""
    torch.manual_seed(0)
    save_network(build_network(NetworkConfig(trunk=TrunkConfig(weights=None))), folder / "best.safetensors")
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of small_vectors.py")
    parser.add_argument("--draw", type=Draw.parsed, default=Draw.parsed("2024:1"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("exported-towers.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    if given.folder:
        world = World(given.folder, given.draw)
        split = TestSplit.of(world.config(OWN, ()))
        for name, run in students(world).items():
            place = world.config(OWN, (f"search.run=runs/{run}-{world.draw.train}",)).search_run
            results[name] = measured(str(place), split, given.repeats)
    else:
        with tempfile.TemporaryDirectory() as folder:
            results["ViT-B/32"] = measured(random_student(Path(folder)), None, given.repeats)
    for name, ways in results.items():
        columns = list(dict.fromkeys(key for found in ways.values() for key in found))
        print(f"\n{name}\n\n| run by | {' | '.join(columns)} |\n" + "|---" * (len(columns) + 1) + "|")
        for way, found in ways.items():
            print(f"| {way} | {' | '.join(f'{found[key]:.1f}' if key in found else '' for key in columns)} |")
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    given.out.write_text(json.dumps({"machine": machine(), "versions": versions, "results": results}, indent=1))
    print(f"\n{machine()}, {versions}; {given.out}")


if __name__ == "__main__":
    main()
