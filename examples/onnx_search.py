"""Search with onnxruntime and numpy alone: neither torch nor teachclip is imported.

    teachclip export-model runs/student --out exported
    teachclip export index/ --to vectors.npy
    python onnx_search.py exported vectors.npy "a dog runs on the beach" --top 5

Sentences become CLIP's token ids here, in plain Python, by the tables that lie beside the text tower. teachclip mends
text with ftfy first; so does this where ftfy is installed, and else it makes quotes straight and letters whole (NFC).
"""

import argparse
import html
import json
import unicodedata
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime

QUOTES = str.maketrans("‘’‚‛“”„‟", "'" * 4 + '"' * 4)
SPECIAL = ("<|startoftext|>", "<|endoftext|>", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Tokenizer:
    """CLIP's byte-pair encoding."""

    def __init__(self, folder: Path, words: int) -> None:
        self.words = words
        self.ids: dict[str, int] = json.loads((folder / "vocab.json").read_text("utf-8"))
        merges = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
        self.ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(merges)}
        shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
        hidden = [byte for byte in range(256) if byte not in shown]
        self.letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + k) for k, byte in enumerate(hidden)}

    def __call__(self, sentences: list[str]) -> np.ndarray:
        """Token ids int64 [T, W], cut to what the model reads, padded with 0."""
        rows = []
        for sentence in sentences:
            text = " ".join(html.unescape(html.unescape(mended(sentence))).split()).lower()
            parts = [part for word in split(text) for part in self.parts(word)][: self.words - 2]
            rows.append([self.ids[part] for part in (SPECIAL[0], *parts, SPECIAL[1])])
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for row, found in zip(ids, rows, strict=True):
            row[: len(found)] = found
        return ids

    def parts(self, word: str) -> list[str]:
        """A word's tokens: of neighbours the pair of the lowest rank is merged, until none has a rank."""
        if word in SPECIAL[:2]:
            return [word]
        parts = [self.letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        while ranked := [(self.ranks[pair], k) for k, pair in enumerate(pairwise(parts)) if pair in self.ranks]:
            _, k = min(ranked)
            parts[k : k + 2] = [parts[k] + parts[k + 1]]
        return parts


def mended(text: str) -> str:
    if find_spec("ftfy") is None:
        return unicodedata.normalize("NFC", text.translate(QUOTES))
    import ftfy

    return ftfy.fix_text(text)


def split(text: str) -> Iterator[str]:
    """Words, single digits and runs of other signs, as CLIP's pattern finds them."""
    start = 0
    while start < len(text):
        stop = start + next((len(each) for each in SPECIAL if text.startswith(each, start)), 1)
        kind = kind_of(text[start])
        if stop == start + 1 and kind != "number":
            while stop < len(text) and kind_of(text[stop]) == kind:
                stop += 1
        if kind != "blank":
            yield text[start:stop]
        start = stop


def kind_of(sign: str) -> str:
    return "blank" if sign.isspace() else {"L": "letter", "N": "number"}.get(unicodedata.category(sign)[0], "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exported", type=Path, help="a folder of `teachclip export-model`")
    parser.add_argument("vectors", type=Path, help="NAME.npy of `teachclip export`, with NAME.jsonl beside it")
    parser.add_argument("sentences", nargs="+")
    parser.add_argument("--top", type=int, default=10)
    given = parser.parse_args()
    told = json.loads((given.exported / "export.json").read_text("utf-8"))
    if (told["format"], told["version"], told["form"]) != ("teachclip towers", 1, "onnx"):
        raise SystemExit(f"{given.exported} is no ONNX export that this script knows")
    if told["tokenizer"]["kind"] != "clip":
        raise SystemExit("this model's words are not CLIP's: read the files beside it with the library tokenizers")
    tower = onnxruntime.InferenceSession(given.exported / told["text"]["file"], providers=["CPUExecutionProvider"])
    (texts,) = tower.run(["vectors"], {"ids": Tokenizer(given.exported, told["text"]["words"])(given.sentences)})
    videos = np.load(given.vectors, mmap_mode="r")
    if videos.shape[1] != told["width"]:
        raise SystemExit(f"{given.vectors} has {videos.shape[1]} numbers a vector, the model {told['width']}")
    rows = [json.loads(line) for line in given.vectors.with_suffix(".jsonl").read_text("utf-8").splitlines()]
    for sentence, cosines in zip(given.sentences, texts @ videos.T, strict=True):
        print(sentence)
        for k in np.argsort(-cosines, kind="stable")[: given.top]:
            print(f"  {cosines[k]:.4f}  {rows[k]['id']}  {rows[k]['start']:.1f} s  {rows[k]['path']}")


if __name__ == "__main__":
    main()
