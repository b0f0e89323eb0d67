"""Does a student of one modality and one text encoder come nearer to teachers of two of each when they teach it?

    python benchmarks/teachtext.py [--folder bench-teachtext] [--seeds 1 2 3] [--train 1000 --val 300 --test 600]

The data are the demo's clips as `_teachtext_data.py` describes them. Teachers are CE networks on both modalities, one
for each text encoder, trained on the same clips as the student, which sees `look` and words of `plain` alone. Teachers
are scored once; their mean teaches by TeachText's Huber loss on similarities. Controls are taught in the same way by
teachers that saw other clips' features in training (shuffled), by teachers of one step (untrained), by the student
alone (its like), which knows no more than the one it teaches, and by one-hot similarities. Networks are chosen on the
validation clips and measured on the test clips. Stopped and given again it goes on. Prints a table, and writes it with
every single result to FOLDER/teachtext.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from _teachtext_data import ENCODERS, MODALITIES, settings, shuffle_features, write_data
from teachclip.cache.scores.store import ScoreStore
from teachclip.configs.schema import Config
from teachclip.stages.analysis.report_card import report_card
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.features.stage import features
from teachclip.stages.retrieval.confidence import difference
from teachclip.stages.retrieval.query_ranks import read_query_ranks
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

METRICS = ("r1", "r5", "r10", "sumr")
OWN = (("look",), "plain")  # what the student sees
BOTH = tuple(MODALITIES)
SHARED = 64
TRAIN: Mapping[str, Any] = {
    "device": "cpu",
    "tensorboard": False,
    "batch_size": 64,
    "epochs": 120,
    "validate_every": 4,
    "epoch_of": "videos",
    "select_by": "geometric-mean",
    "optim": {
        "optimiser": "radam",
        "lr": 3e-3,
        "weight_decay": 1e-5,
        "schedule": "per-epoch",
        "epoch_factor": 0.98,
        "clip_norm": None,
    },
}
LOSS: Mapping[str, Any] = {
    "contrastive": "max-margin",
    "margin": 0.1,
    "infonce": 1.0,
    "mask_same_video": False,
    "fine": 0.0,
    "coarse_kind": "huber",
    "coarse_on": "cosines",
    "teachers": "mean-similarity",
}
TEACHING: Mapping[str, Any] = {"coarse": 3.0}  # chosen on the validation clips; TeachText has 1
TEACHERS = ("teachers", "shuffled", "untrained")
ALONE, TAUGHT = "alone", "taught by teachers"

type Results = dict[str, dict[str, Any]]


def network(modalities: Sequence[str], encoder: str) -> dict[str, Any]:
    """A CE network; with one modality nothing gates it but itself."""
    text = {"encoder": encoder, "width": ENCODERS[encoder], "words": 16, "clusters": 8, "ghosts": 1}
    experts = {name: {"width": MODALITIES[name], "tokens": 12, "clusters": 8} for name in modalities}
    return {"kind": "ce", "experts": {"modalities": experts, "text": text, "shared": SHARED}}


@dataclass(frozen=True)
class World:
    """Everything of one training seed; data and features are shared by all.

    Attributes:
        train, teaching: changes to the section `train` of all networks, and to `train.loss` of taught students.
    """

    folder: Path
    seed: int
    train: Mapping[str, Any]
    teaching: Mapping[str, Any]

    def config(
        self,
        run: str,
        sees: tuple[Sequence[str], str] = OWN,
        *,
        train: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        shuffled: bool = False,
        score: Mapping[str, Any] | None = None,
    ) -> Config:
        """A network that sees these modalities and words of this encoder."""
        place = f"runs/{self.named(run)}"
        trained = {**TRAIN, **self.train, **(train or {}), "run": place, "seed": self.seed, "network": network(*sees)}
        sections = {
            **settings(self.folder / "data", self.folder / "shuffled" if shuffled else None),
            "work": str(self.folder / "work"),
            "train": {**trained, "loss": {**LOSS, **(loss or {})}},
            "evaluate": {"run": place, "device": "cpu"},
            "score": score or {},
        }
        return Config.model_validate(sections)

    def named(self, name: str) -> str:
        return f"{_id(name)}-{self.seed}"

    def measured(self, config: Config) -> dict[str, Any]:
        """Train a network (found where it was trained) and measure it on the test clips."""
        done, found = train(config), evaluate(config)
        ways = {way: {key: getattr(found, way)[key] for key in METRICS} for way in ("t2v", "v2t")}
        best = {key: done.best[key] for key in ("value", "step")}
        return {**ways, "val": best["value"], "step": best["step"], "seconds": done.seconds, "ranks": found.ranks}

    def teachers(self, kind: str) -> Results:
        """A teacher for each text encoder, on both modalities."""
        changes = {"max_steps": 1} if kind == "untrained" else {}
        return {
            f"{kind} {encoder}": self.measured(
                self.config(f"{kind} {encoder}", (BOTH, encoder), train=changes, shuffled=kind == "shuffled")
            )
            for encoder in ENCODERS
        }

    def scored(self, store: str, runs: Sequence[str], split: str) -> dict[str, Any]:
        """Score with trained networks; the section `score` for who learns from them."""
        told = {
            "store": f"{self.named(store)}.zarr",
            "teachers": [{"name": _id(run), "checkpoint": f"runs/{self.named(run)}"} for run in runs],
            "splits": [split],
            "device": "cpu",
            "chance_check": False,  # controls are no better
        }
        score(self.config("none", score=told))
        return told

    def taught(self, name: str, runs: Sequence[str]) -> dict[str, Any]:
        """The student by the mean of these networks."""
        told, names = self.scored(name, runs, "train"), [_id(run) for run in runs]
        return self.measured(self.config(name, train={"teachers": names}, loss=self.teaching, score=told))

    def results(self) -> Results:
        """All networks, and how each student's scores of the test captions correlate with the teachers'."""
        found: Results = {}
        for kind in TEACHERS:
            found |= self.teachers(kind)
        students = {ALONE: self.measured(self.config(ALONE))}
        for kind in TEACHERS:
            runs = [f"{kind} {encoder}" for encoder in ENCODERS]
            students[f"taught by {kind}"] = self.taught(f"taught by {kind}", runs)
        students["taught by its like"] = self.taught("taught by its like", [ALONE])
        students["one-hot"] = self.measured(self.config("one-hot", loss={**self.teaching, "coarse_target": "one-hot"}))
        teachers = [f"teachers {encoder}" for encoder in ENCODERS]
        near = self.correlations(teachers, list(students))
        for name, one in students.items():
            found[name] = {**one, "near": near[name]}
        return found

    def correlations(self, teachers: Sequence[str], students: Sequence[str]) -> dict[str, float]:
        """Of each student's rows of scores of the test captions with the teachers' rows, the mean over the teachers."""
        told = self.scored("test", [*teachers, *students], "test")
        card = report_card(ScoreStore.open(self.folder / "work" / told["store"]))
        pairs = {frozenset((each.first, each.second)): each.pearson or 0.0 for each in card.agreement}
        return {
            student: statistics.mean(pairs[frozenset((_id(teacher), _id(student)))] for teacher in teachers)
            for student in students
        }


def _id(name: str) -> str:
    return name.replace(" ", "-")


def make(folder: Path, clips: Mapping[str, int], seed: int) -> None:
    """Data and features, and features of the training clips that are other clips'."""
    data, shuffled = folder / "data", folder / "shuffled"
    if not (data / "clips.json").exists():
        write_data(data, clips, seed)
        shuffle_features(data, shuffled, seed)
        (data / "clips.json").write_text(json.dumps({**clips, "seed": seed}))
    if json.loads((data / "clips.json").read_text()) != {**clips, "seed": seed}:
        raise SystemExit(f"{folder} holds clips of other numbers or another seed: name another --folder")
    for wrong in (None, shuffled):
        sections = {**settings(data, wrong), "work": str(folder / "work")}
        features(Config.model_validate(sections))


def rows_of(results: Mapping[str, Results]) -> list[dict[str, Any]]:
    """Per network the median over seeds; of students what they have over the student alone, and what the one taught by
    the teachers has over them, seed by seed."""
    rows = []
    for name in next(iter(results.values())):
        each = [one[name] for one in results.values()]
        row: dict[str, Any] = {"network": name}
        row |= {key: statistics.median(one["t2v"][key] for one in each) for key in METRICS}
        row["v2t sumr"] = statistics.median(one["v2t"]["sumr"] for one in each)
        if "near" in each[0]:
            row["near"] = statistics.median(one["near"] for one in each)
            if name != ALONE:
                row["over alone"] = [over(one[name], one[ALONE]) for one in results.values()]
            if name != TAUGHT:
                row["taught over it"] = [over(one[TAUGHT], one[name]) for one in results.values()]
        rows.append(row)
    return rows


def over(one: Mapping[str, Any], alone: Mapping[str, Any]) -> dict[str, float]:
    """The difference of SumR, text to video, and its paired 95 % interval over the test clips."""
    ranks = (read_query_ranks(Path(each["ranks"])) for each in (one, alone))
    return asdict(difference(*ranks)["t2v"]["sumr"])


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a network, Markdown."""
    heads = ("network", "R@1", "R@5", "R@10", "SumR", "SumR v2t", "correlation", "SumR over alone", "taught over it")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        near = f"{row['near']:.3f}" if "near" in row else ""
        gains = (
            ", ".join(f"{one['value']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})" for one in row.get(key, ()))
            for key in ("over alone", "taught over it")
        )
        told = " | ".join(f"{row[key]:.1f}" for key in (*METRICS, "v2t sumr"))
        print(f"| {row['network']} | {told} | {near} | {' | '.join(gains)} |")


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("bench-teachtext"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data-seed", type=int, default=7)
    for split, clips in (("train", 1000), ("val", 300), ("test", 600)):
        parser.add_argument(f"--{split}", type=int, default=clips, help=f"clips to {split} with")
    parser.add_argument("--weight", type=float, default=TEACHING["coarse"], help="of the teaching loss")
    parser.add_argument("--epochs", type=int, default=TRAIN["epochs"])
    given = parser.parse_args()
    begun = time.perf_counter()
    make(given.folder, {split: getattr(given, split) for split in ("train", "val", "test")}, given.data_seed)
    results: dict[str, Results] = {}
    for seed in given.seeds:
        results[str(seed)] = World(given.folder, seed, {"epochs": given.epochs}, {"coarse": given.weight}).results()
        for name, one in results[str(seed)].items():
            told = ", ".join(f"{key} {one['t2v'][key]:.1f}" for key in METRICS)
            print(f"{seed} {name}: {told}; val {one['val']:.1f} at {one['step']}, {one['seconds']:.0f} s", flush=True)
    rows = rows_of(results)
    print_table(rows)
    document = {"machine": machine(), "torch": torch.__version__, "given": {**vars(given), "folder": str(given.folder)}}
    document |= {"seconds": time.perf_counter() - begun, "rows": rows, "results": results}
    path = given.folder / "teachtext.json"
    path.write_text(json.dumps(document, indent=1))
    print(f"\n{machine()}, torch {torch.__version__}, {document['seconds']:.0f} s; {path}")


if __name__ == "__main__":
    main()
