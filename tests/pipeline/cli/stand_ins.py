"""Stand-ins for the stages behind the command line, and what they return."""

from dataclasses import replace
from typing import Any

import pytest
from teachclip.cache.frames.record import VideoStatus
from teachclip.configs.published_sets import Count
from teachclip.pipeline.demo.chain import DemoModel, DemoResult
from teachclip.pipeline.steps import Step
from teachclip.stages.analysis.closeness import Closeness
from teachclip.stages.analysis.cost.table import CostReport
from teachclip.stages.analysis.frame_weights import FrameWeights, QueryWeights
from teachclip.stages.data.check import DataCheck, SplitCheck, Wanted
from teachclip.stages.evaluate.one_model import EvaluateResult
from teachclip.stages.evaluate.share import Shared
from teachclip.stages.evaluate.stage import Evaluations
from teachclip.stages.labels.denoise import DenoiseResult, RankedCaption
from teachclip.stages.models.checkpoints.convert import Converted
from teachclip.stages.models.checkpoints.inspect import Inspection
from teachclip.stages.models.exported.export import ExportedModel
from teachclip.stages.prepare.estimate import PrepareEstimate
from teachclip.stages.prepare.stage import PrepareResult
from teachclip.stages.score.chance_check import OwnRanks
from teachclip.stages.score.one_teacher import TeacherScores
from teachclip.stages.score.stage import ScoreResult
from teachclip.stages.search.export.encoded import Encoded
from teachclip.stages.search.export.stage import Exported
from teachclip.stages.search.index import IndexResult
from teachclip.stages.search.index_search import IndexSearched, VideoFound, VideosFound, WindowFound
from teachclip.stages.search.library.estimate import IndexEstimate
from teachclip.stages.search.library.stage import VideosIndexed
from teachclip.stages.search.searcher import Answer, QueryAnswers, SearchResult
from teachclip.stages.train.run import TrainResult

type Calls = list[tuple[str, tuple[Any, ...]]]

METRICS = {"r1": 48.0, "r5": 73.0, "r10": 82.9, "r50": 95.0, "sumr": 203.9, "mdr": 2.0, "mnr": 13.129, "queries": 1000}
EVALUATED = EvaluateResult("runs/student", "test", "fair", 1000, 1000, 3, METRICS, METRICS)
TRAINED = TrainResult(
    "runs/student", "runs/student/best.safetensors", 600, 5000, 1000, 2, ("xclip",),
    {"step": 550, "epoch": 5, "chosen_by": "sumr", "value": 104.1}, 72.0, 0.2, False,
)  # fmt: skip
ANSWERS = (Answer(1, 0.31, "a.mp4", "/v/a.mp4"), Answer(2, 0.2, "b.mp4", "/v/b.mp4"))
FOUND = SearchResult((QueryAnswers("a dog", ANSWERS),), 9, 0.1)
BROKEN = VideoStatus("x.mp4", "corrupt", "no video stream", 0, None)
PREPARED = PrepareResult("work/frames", 28, {"ok": 27, "corrupt": 1}, (BROKEN,), 5, 3.25, 1.5, 18_100_000)
CHECKED = DataCheck(
    "didemo", "DiDeMo, paragraphs", "annotations", "videos", "the.page", "its own 1065 validation videos",
    (SplitCheck("train", 8362, 8362, Count(8392, 8392), 8361, 8360, ("train_data.json",), None),
     SplitCheck("test", 0, 0, Count(1004, 1004), 0, None, (), "a.json:3: not JSON")),
    ("a.txt:1: odd",), 1, ("b", "c"), 21, (BROKEN,), 1, "28 videos in the frame cache", {"train, test": 7},
    (("a (train)", "b (test)"),), 1, (Wanted(("a.txt", "b.txt"), ("test",), "somebody"),), ("train: 30 fewer",), None,
)  # fmt: skip
ESTIMATED = PrepareEstimate(9000, 8990, 16_000_000_000, 18_100_000_000, 1830.0, 2, 5 * 10**11, 12)
RANKS = OwnRanks(1024, 9000, 3.0, 20.5, 41.25, 60.0, 80.0, 0.01, False)
SCORED = ScoreResult(
    "work/scores.zarr",
    (TeacherScores("xclip", 180_000, 9000, 176, 100, 76, 600.0, RANKS), TeacherScores("b", 1, 1, 1, 0, 1, 1.0, None)),
    3, 601.0,
)  # fmt: skip
DENOISED = DenoiseResult(
    "captions-mask.json", ("xclip", "drl"), 100, "keep-best", 180_000, 9000, 3, 179_000, 1000, ("a.mp4",), (), 4.0,
    (RankedCaption("b.mp4#3", "b.mp4", "something happens", 8999.5),), 60.0,
)  # fmt: skip
MODELS = (DemoModel("X-CLIP teacher", "r/x", METRICS, METRICS), DemoModel("student taught", "r/t", METRICS, METRICS))
SHOWN = DemoResult("demo/report.html", "my demo/demo.yaml", MODELS, FOUND, (Step("render", False, 9.0),), 300.0)

INSPECTED = Inspection(
    "model.bin", "torch", 391_000_000, "ab" * 32, "TS2-Net with token shift in blocks 10, 11", "ts2net", None,
    {"image_size": 224, "patch_size": 32, "vision_layers": 12, "vision_width": 768, "vision_heads": 12,
     "embed_dim": 512, "frames": 12, "words": 32, "temporal_layers": 4},
    ("words",), {"mask_padding": False, "shift_layers": (10, 11)}, {},
    366, 164_189_442, {"float16": 150, "float32": 216}, 4.6052, 100.0, "cd" * 32, ("half", "not recorded"), None,
)  # fmt: skip
COSTED = CostReport("Operations are multiply-adds.", (), (), (), {}, None, ())
LOOKED = FrameWeights(
    "test", "xclip", "store", 1000, 900, 990,
    (Closeness("student", 0.5, 0.25, 0.0125, 0.4), Closeness("uniform", None, None, 0.5, 0.125)),
    (QueryWeights("dog.mp4#1", "a dog", "dog.mp4", (0.0, 1.0, float("nan")), (True, True, False), (0.75, 0.25, 0.0),
                  {"student": (0.5, 0.5, 0.0)}, {"student": (0.5, 0.5, 0.0)}, 0.25),),
)  # fmt: skip
CONVERTED = Converted("xclip.safetensors", "X-CLIP", "teachclip", "cd" * 32, 12, 32, 366, 7, ())


VECTORS = IndexResult("work/index", 28, 512, 3, 25, 1, None, 4.0)
INDEXED = VideosIndexed(
    "index", "openclip:ViT-B-32/openai", 512, 29, {"ok": 28, "corrupt": 1}, 5, 7, 20, 2, 1, 1, 3, (BROKEN,), 30, 44, 9.0
)
SHARED = Shared("hf:me/video-search", "video-search", 350_000_000, None, ())
EXPORTED_MODEL = ExportedModel(
    "exported", "onnx", "float32", "runs/student: TeachCLIP student", "d" * 64, 64,
    {"text": 9, "video": 9}, {"text": 1e-7, "video": 1e-7}, 1e-4, 1.0,
)  # fmt: skip
EXPORTED = Exported("vectors.parquet", "runs/student", 512, 44, 3, 1, 41, 0.5)
ENCODED = Encoded("texts.npy", "runs/student: TeachCLIP student", 512, 2, (BROKEN,), 0.5)
INDEX_ESTIMATED = IndexEstimate(50_000, 49_000, 12, 3, 71 * 10**9, 120_000_000, 5000.0, 2, 6)
IN_INDEX = IndexSearched(
    (VideosFound("a dog", (
        VideoFound(12, 0.31, 30.0, 60.0, 42.5, 1, "/v/a.mp4", (WindowFound(12, 0.31, 30.0, 60.0, 42.5),
                                                              WindowFound(250, 0.1, 3600.0, 3630.0, 3605.0))),
        VideoFound(3, 0.2, 0.0, 8.4, 0.0, 2, "/v/b.mp4"),
    )),
     VideosFound("a cat", ())),
    "openclip:ViT-B-32/openai", 44, 0.1,
)  # fmt: skip


def stand_in_for_stages(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Nothing runs from here on: stages return what stands above. The list fills with what they are called with."""
    calls: Calls = []

    def stand_in(target: str, result: object) -> None:
        def run(*arguments: Any, **_: Any) -> object:
            calls.append((target, arguments))
            return result

        monkeypatch.setattr(f"teachclip.{target}", run)

    stand_in("pipeline.demo.chain.run_demo", SHOWN)
    stand_in("stages.prepare.stage.prepare", PREPARED)
    stand_in("stages.prepare.cluster.prepare_on_cluster", PREPARED)
    stand_in("stages.prepare.estimate.estimate_frames", ESTIMATED)
    stand_in("stages.data.check.check_data", CHECKED)
    stand_in("stages.score.workers.processes.score_by_processes", SCORED)
    stand_in("stages.score.workers.cluster.score_on_cluster", SCORED)
    stand_in("stages.labels.denoise.denoise", DENOISED)
    stand_in("stages.train.stage.train", TRAINED)
    stand_in("stages.evaluate.stage.evaluate", EVALUATED)
    stand_in("stages.evaluate.stage.evaluate_sets", Evaluations((replace(EVALUATED, data="own_videos"),), ()))
    stand_in("stages.search.stage.search", FOUND)
    stand_in("stages.search.index_search.search_index", IN_INDEX)
    stand_in("stages.search.index.index", VECTORS)
    stand_in("stages.search.library.stage.index_videos", INDEXED)
    stand_in("stages.search.library.cluster.index_on_cluster", INDEXED)
    stand_in("stages.search.library.estimate.estimate_videos", INDEX_ESTIMATED)
    stand_in("stages.search.export.stage.export_index", EXPORTED)
    stand_in("stages.models.exported.export.export_model", EXPORTED_MODEL)
    stand_in("stages.evaluate.share.share", SHARED)
    stand_in("stages.search.export.encoded.encode_texts", ENCODED)
    stand_in("stages.search.export.encoded.encode_videos", ENCODED)
    stand_in("stages.analysis.cost.table.cost", COSTED)
    stand_in("stages.analysis.frame_weights.frame_weights", LOOKED)
    stand_in("stages.models.checkpoints.inspect.inspect", INSPECTED)
    stand_in("stages.models.checkpoints.convert.convert", CONVERTED)
    return calls
