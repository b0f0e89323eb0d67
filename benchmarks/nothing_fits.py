"""Whether one can tell from cosines alone that no video fits a sentence: rules, on captions and on nonsense.

    python benchmarks/nothing_fits.py demo/demo.yaml [--run runs/wide runs/taught] [--out nothing_fits.json]

A demo folder with its students (teachclip demo demo). The index holds all captioned clips. A rule gives a sentence a
number, and a note where it is below a threshold, that of the 4 % lowest captions of validation; `lead*` is `lead` with
the threshold of stages/search/serving/nothing_fits.py. `usual` is what sentences without meaning have in the same
index.

    best     the best cosine, over the usual one
    z        the best cosine's distance from the mean of all, in deviations of the sentence's own cosines
    lead     the best cosine's distance from the mean of all, over the usual one

`alarms`: test captions, whose own clip is there, that get a note, in percent; `words`: the names of colours and shapes,
each alone, of all of which there are clips (a search judges no single word for that reason). The others are sentences
that nothing fits and that get none: `everyday` (people, animals, places), `random` words of CLIP's vocabulary;
`shuffled` (test captions, whose words still tell what is there) and `near` (captions that name a colour, of an index
without the clips of that colour) are as hard as it gets. AUC is for everyday and random together. Below: indexes of
other sizes, five draws each: `alarms` of `best`, with the threshold from above, and of `lead*`; what `lead*` lets
through of nonsense.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _machine import machine
from open_clip.tokenizer import SimpleTokenizer
from teachclip.configs.loading import load_config
from teachclip.configs.schema import Config
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.demo.drawing import COLOURS
from teachclip.stages.demo.shapes import WORDS
from teachclip.stages.models.clip.tokens import tokenize
from teachclip.stages.models.common.network import VideoTextNetwork
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.search.index import up_to_date
from teachclip.stages.search.serving.nothing_fits import LEAST, MEANINGLESS, Usual

ALARMS = 0.04  # of the validation captions, so that there are at most 5 % of others
SIZES = (20, 50, 100, 400)
COUNT = 600  # sentences of each kind of nonsense
SUBJECTS = (
    "a dog", "a man", "two women", "a child", "the chef", "a cat", "my neighbour", "an old car", "a football team",
    "the singer", "some soldiers", "a horse",
)  # fmt: skip
VERBS = (
    "runs along", "sits beside", "paints", "repairs", "dances near", "sleeps behind", "shouts at", "buys",
    "cooks for", "jumps over",
)  # fmt: skip
OBJECTS = (
    "the beach", "a wooden table", "the crowd", "a bicycle", "the kitchen", "an orchestra", "a mountain lake",
    "the train station", "a birthday cake", "some friends",
)  # fmt: skip

type Encode = Callable[[Sequence[str]], np.ndarray]
type Rule = Callable[[np.ndarray], np.ndarray]


def rules(matrix: np.ndarray, meaningless: np.ndarray) -> dict[str, Rule]:
    """Numbers [T] of sentences [T, D] by rule, in an index of vectors [N, D]."""
    usual = Usual.of(matrix, meaningless, (meaningless @ matrix.T).max(1).tolist())

    def z(sentences: np.ndarray) -> np.ndarray:
        cosines = sentences @ matrix.T
        return np.asarray((cosines.max(1) - cosines.mean(1)) / cosines.std(1))

    def by(number: Callable[[np.ndarray, float], float]) -> Rule:
        def of(sentences: np.ndarray) -> np.ndarray:
            best = (sentences @ matrix.T).max(1).tolist()
            return np.array([number(each, one) for each, one in zip(sentences, best, strict=True)])

        return of

    usual_best = float((meaningless @ matrix.T).max(1).mean())
    return {"best": by(lambda _, best: best / usual_best), "z": z, "lead": by(usual.lead_of)}


def nonsense(captions: Sequence[str]) -> dict[str, list[str]]:
    """Sentences by kind, the same at every call."""
    rng = np.random.default_rng(0)
    everyday = [" ".join(parts) for parts in product(SUBJECTS, VERBS, OBJECTS)]
    words = [word.removesuffix("</w>") for word in SimpleTokenizer().encoder if word.endswith("</w>")]  # type: ignore[no-untyped-call]
    words = [word for word in words if word.isascii() and word.isalpha() and 3 <= len(word) <= 9]
    return {
        "everyday": [everyday[k] for k in rng.permutation(len(everyday))[:COUNT]],
        "random": [" ".join(rng.choice(words, rng.integers(3, 11))) for _ in range(COUNT)],
        "shuffled": [" ".join(rng.permutation(captions[k].split())) for k in rng.permutation(len(captions))[:COUNT]],
    }


def auc(fitting: np.ndarray, others: np.ndarray) -> float:
    """The chance that a sentence that something fits has the larger number; equals count half."""
    return float(np.mean((fitting[:, None] > others) + 0.5 * (fitting[:, None] == others)))


def below(numbers: np.ndarray, threshold: float) -> float:
    """Percent that get a note."""
    return 100.0 * float(np.mean(numbers < threshold))


class Clips:
    """Captioned clips of a demo, their vectors and captions."""

    def __init__(self, config: Config, run: str) -> None:
        data = read_dataset(config.data)
        self.split = {video.id: video.split for video in data.videos}
        self.captions = {
            split: [(text.video, text.caption) for text in data.texts_of(split)] for split in ("val", "test")
        }
        with tempfile.TemporaryDirectory() as work:
            searched = config.search.model_copy(update={"run": Path(run), "index": Path(work).absolute()})
            embedder, vectors, _ = up_to_date(config.model_copy(update={"search": searched}), Silent())
        self.network: VideoTextNetwork = embedder.network
        chosen = [k for k, video in enumerate(vectors.videos) if video in self.split]
        self.videos = [vectors.videos[k] for k in chosen]
        self.matrix = vectors.matrix[chosen].astype(np.float32)

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Vectors [T, D]."""
        words, parts = self.network.config.words, range(0, len(sentences), 256)
        made = [self.network.encode_texts(tokenize(sentences[k : k + 256], words)[0])["vector"] for k in parts]
        return np.asarray(torch.cat(made).float().numpy())

    def of_split(self, split: str) -> np.ndarray:
        """Vectors of its captions [T, D]."""
        return self.encode([caption for _, caption in self.captions[split]])


def near(clips: Clips, meaningless: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers by rule of test captions that name a colour, where no clip that has a caption with it is there."""
    every = [pair for pairs in clips.captions.values() for pair in pairs]
    found: dict[str, list[np.ndarray]] = {}
    for colour in COLOURS:
        without = {video for video, caption in every if colour in caption.split()}
        described = {video for video, _ in every}  # those of training have one caption, which may leave a colour out
        kept = [k for k, video in enumerate(clips.videos) if video in described and video not in without]
        asked = clips.encode([caption for _, caption in clips.captions["test"] if colour in caption.split()])
        for rule, number in rules(clips.matrix[kept], meaningless).items():
            found.setdefault(rule, []).append(number(asked))
    return {rule: np.concatenate(parts) for rule, parts in found.items()}


def compared(clips: Clips) -> list[dict[str, Any]]:
    """A row a rule."""
    meaningless = clips.encode(MEANINGLESS)
    fitting = {split: clips.of_split(split) for split in ("val", "test")}
    kinds = {kind: clips.encode(each) for kind, each in nonsense([text for _, text in clips.captions["test"]]).items()}
    fitting["words"] = clips.encode([*COLOURS, *(name for names in WORDS.values() for name in names)])
    hard, rows = near(clips, meaningless), []
    for rule, number in rules(clips.matrix, meaningless).items():
        numbers = {kind: number(vectors) for kind, vectors in (fitting | kinds).items()} | {"near": hard[rule]}
        area = auc(numbers["test"], np.concatenate([numbers["everyday"], numbers["random"]]))
        chosen = float(np.quantile(numbers["val"], ALARMS))
        for name, threshold in ((rule, chosen), *([("lead*", LEAST)] if rule == "lead" else [])):
            false = {kind: 100.0 - below(numbers[kind], threshold) for kind in (*kinds, "near")}
            alarms = {"alarms": below(numbers["test"], threshold), "words": below(numbers["words"], threshold)}
            rows.append({"rule": name, "threshold": threshold, "auc": area, **alarms, **false})
    return rows


def sizes(clips: Clips, best: float) -> list[dict[str, Any]]:
    """Indexes of some of the test clips."""
    meaningless, asked, rows = clips.encode(MEANINGLESS), clips.of_split("test"), []
    kinds = {kind: clips.encode(each) for kind, each in nonsense(["none"]).items() if kind != "shuffled"}
    own = np.array([clips.videos.index(video) for video, _ in clips.captions["test"]])
    tests = np.unique(own)
    for size in SIZES:
        found: dict[str, list[float]] = {}
        for draw in range(5):
            kept = np.random.default_rng(draw).choice(tests, size, replace=False)
            number, fitting = rules(clips.matrix[kept], meaningless), asked[np.isin(own, kept)]
            found.setdefault("best", []).append(below(number["best"](fitting), best))
            found.setdefault("lead*", []).append(below(number["lead"](fitting), LEAST))
            for kind, vectors in kinds.items():
                found.setdefault(kind, []).append(100.0 - below(number["lead"](vectors), LEAST))
        rows.append({"clips": size, **{key: float(np.mean(each)) for key, each in found.items()}})
    return rows


def shown(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table."""
    heads = list(rows[0])
    print(" ".join(f"{head:>9}" for head in heads))
    for row in rows:
        cells = (f"{row[head]:9.2f}" if head in ("threshold", "auc") else row[head] for head in heads)
        print(" ".join(f"{cell:9.1f}" if isinstance(cell, float) else f"{cell:>9}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--run", nargs="+", default=["runs/wide"], help="students, each in a table of its own")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config, found = load_config(given.config), {}
    print(machine())
    for run in given.run:
        clips = Clips(config, run)
        table = compared(clips)
        found[run] = {"rules": table, "sizes": sizes(clips, table[0]["threshold"])}
        print(f"\n{run}, {len(clips.videos)} clips")
        shown(found[run]["rules"])
        shown(found[run]["sizes"])
    if given.out:
        given.out.write_text(json.dumps({"machine": machine(), "students": found}, indent=1))


if __name__ == "__main__":
    main()
