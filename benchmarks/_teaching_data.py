"""The demo's clips at any size: one's own captions of some of them, a teacher that learnt from others, its scores."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config
from teachclip.stages.demo.pretrain import pretrain
from teachclip.stages.demo.render import OWN, THEIRS, UNCAPTIONED, render
from teachclip.stages.evaluate.stage import evaluate
from teachclip.stages.prepare.stage import prepare
from teachclip.stages.score.stage import score
from teachclip.stages.train.stage import train

METRICS = ("r1", "r5", "r10", "sumr")
DEMO = Path(__file__).parents[1] / "configs/demo.yaml"
MOST_CLIPS, MOST_CAPTIONS = 1600, 5
TAUGHT_STEPS = 600  # of students that are taught
KINDS: Mapping[str, tuple[str, ...]] = {  # of teachers; an epoch of the clips that are theirs has 234 steps
    "xclip": ("train.network.kind=xclip",),
    "xpool": ("train.network.kind=xpool",),
    "drl": ("train.network.kind=drl",),
    "drl-best-word": ("train.network.kind=drl", "train.network.drl.frame_scores=best-word"),
    "ts2net": (  # it shifts tokens within the trunk, which cannot be frozen for it: a step takes far longer
        "train.network.kind=ts2net",
        "train.network.ts2net.shift_layers=[1,2]",
        "train.trunk=full",
        "train.max_steps=234",
    ),
}


type Results = dict[str, dict[str, Any]]


def teacher_run(kind: str) -> str:
    """Where the teacher of a kind is trained."""
    return "teacher" if kind == "xclip" else f"teacher-{kind}"


def losses(infonce: float, coarse: float, fine: float, *more: str) -> tuple[str, ...]:
    """Overrides for the weights of the three losses."""
    weights = {"infonce": infonce, "coarse": coarse, "fine": fine}
    return (*(f"train.loss.{name}={weight}" for name, weight in weights.items()), *more)


@dataclass(frozen=True)
class Own:
    """How many clips the student's owner has captions of, and how many of each."""

    clips: int
    captions: int

    def __str__(self) -> str:
        return f"{self.clips}x{self.captions}"

    @classmethod
    def parsed(cls, text: str) -> "Own":
        """Of `400x1`."""
        clips, _, captions = text.partition("x")
        return cls(int(clips), int(captions))


def taught_steps(own: Own) -> tuple[str, ...]:
    """The budget of students that are taught: a checkpoint about every hundred steps, or every 16 epochs."""
    epoch = max(1, own.clips * own.captions // 64)
    epochs, every = max(100, -(-TAUGHT_STEPS // epoch)), max(16, 96 // epoch)
    return (f"train.max_steps={TAUGHT_STEPS}", f"train.epochs={epochs}", f"train.validate_every={every}")


@dataclass(frozen=True)
class Draw:
    """A seed of the clips and the trunk, and one of everything else."""

    data: int
    train: int

    def __str__(self) -> str:
        return f"{self.data}:{self.train}"

    @classmethod
    def parsed(cls, text: str) -> "Draw":
        """Of `7:1`."""
        data, _, train = text.partition(":")
        return cls(int(data), int(train))


@dataclass(frozen=True)
class World:
    """All of one draw: folders below `folder`/data-SEED, the clips and the trunk shared by draws of one data seed."""

    folder: Path
    draw: Draw
    overrides: tuple[str, ...] = ()

    @property
    def place(self) -> Path:
        return self.folder / f"data-{self.draw.data}"

    def config(self, captions: str, overrides: Sequence[str]) -> Config:
        """The demo's configuration with the captions file `captions`, everything below `place`."""
        paths = {
            "work": self.place / "work",
            "data.captions": self.place / captions,
            "data.unlabelled": self.place / UNCAPTIONED,
            "train.network.trunk.weights": self.place / "trunk.safetensors",
        }
        sizes = {
            "seed": self.draw.data,
            "train_clips": MOST_CLIPS,
            "train_captions": MOST_CAPTIONS,
        }
        given = [f"{key}={value.absolute()}" for key, value in paths.items()]
        given += [f"shapes.{key}={value}" for key, value in sizes.items()]
        return load_config(DEMO, [*given, f"train.seed={self.draw.train}", *overrides, *self.overrides])

    def make(self) -> None:
        """Clips, frames, trunk and the teacher."""
        config = self.config(OWN, ())
        render(config.shapes, self.place)
        for captions in (OWN, THEIRS):
            prepare(self.config(captions, ()))
        network = config.train.network
        assert network.trunk.sizes
        pretrain(config.shapes, network.trunk.sizes, network.words, self.place / "trunk.safetensors")

    def own(self, own: Own) -> str:
        """The captions file of that many clips; validation and test as they are."""
        name = f"own-{own}.csv"
        if not (self.place / name).exists():
            with (self.place / OWN).open(newline="") as file:
                rows = list(csv.reader(file))
            seen: dict[str, int] = {}
            kept = [rows[0]]
            for video, caption, split in rows[1:]:
                seen[video] = seen.get(video, 0) + 1
                few = seen[video] <= own.captions and int(video.removesuffix(".mp4")[-4:]) < own.clips
                if split != "train" or few:
                    kept.append([video, caption, split])
            with (self.place / name).open("w", newline="") as file:
                csv.writer(file).writerows(kept)
        return name

    def trained(self, captions: str, run: str, overrides: Sequence[str]) -> dict[str, Any]:
        """Train a network (found where it was trained) and measure it on the test clips: metrics, both ways."""
        places = (f"train.run=runs/{run}-{self.draw.train}", f"evaluate.run=runs/{run}-{self.draw.train}")
        done = train(self.config(captions, (*overrides, *places)))
        measured = evaluate(self.config(OWN, (*overrides, *places)))
        t2v, v2t = ({key: way[key] for key in METRICS} for way in (measured.t2v, measured.v2t))
        return {"t2v": t2v, "v2t": v2t, "val": done.best["value"], "step": done.best["step"], "seconds": done.seconds}

    def teacher(
        self, captions: str = THEIRS, run: str = "teacher", overrides: Sequence[str] = (), kind: str = "xclip"
    ) -> dict[str, Any]:
        """A teacher, as far as it is not there yet."""
        steps = ("train.max_steps=600", "train.validate_every=1")
        return self.trained(captions, run, (*losses(1, 0, 0), *steps, *KINDS[kind], *overrides))

    def teacher_of(self, kind: str) -> dict[str, Any]:
        """The teacher of a kind that learns from the clips that are theirs."""
        return self.teacher(run=teacher_run(kind), kind=kind)

    def scores(
        self, captions: str, name: str, teachers: Mapping[str, str], overrides: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Score with them; what a student that learns from all of them is told.

        Args:
            teachers: per name what the teacher is, an entry of `score.teachers` without its name.
        """
        entries = ", ".join(f"{{name: {one}, {source}}}" for one, source in teachers.items())
        told = (f"score.store=scores-{name}-{self.draw.train}.zarr", f"score.teachers=[{entries}]")
        score(self.config(captions, (*told, *overrides)))
        return (*told, f"train.teachers=[{', '.join(teachers)}]")

    def run(self, name: str) -> str:
        """A trained teacher, as `scores` takes it."""
        return f"checkpoint: runs/{name}-{self.draw.train}"
