"""The demo's clips as a data set of TeachText's kind: two modalities of every clip, two text encoders of every caption.

No network is trained for it. `look` says where in a frame which colours are [12, 72]; `motion` where each colour went
from one frame to the next [11, 24]: what frozen networks would tell, and neither tells the other. `plain` has a random
vector for every word [W, 32], so that a disc and a circle have nothing in common; `context` knows synonyms, and of
every word also those around it [W, 64].
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from teachclip.stages.demo.drawing import COLOURS
from teachclip.stages.demo.shapes import DIRECTIONS, WORDS, make_clip

Array = NDArray[np.float32]
MODALITIES = {"look": 72, "motion": 24}
ENCODERS = {"plain": 32, "context": 64}
SIZE = 64
NEAR = 70.0  # how far a pixel may be from a palette colour, in RGB
LEAST = 0.004  # share of the pixels that a colour has to have to be followed
PLAIN, AROUND = 32, 2
_CELLS = 3
_SYNONYMS = {word: words[0] for words in WORDS.values() for phrase in words for word in phrase.split()}
_SYNONYMS |= {word: name for name, (_, words) in DIRECTIONS.items() for phrase in words for word in phrase.split()[-1:]}


def write_data(folder: Path, clips: Mapping[str, int], seed: int) -> None:
    """Write captions.csv, a file for each modality, and one for each text encoder.

    Args:
        clips: of each split (train, val, test), each with five captions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: h5py.File(folder / f"{name}.h5", "w") for name in (*MODALITIES, *ENCODERS)}
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "caption", "split"])
        for video, split, frames, captions in drawn_clips(clips, seed):
            rows.writerows((f"{video}.mp4", caption, split) for caption in captions)
            masks = colour_masks(frames)
            files["look"][video] = look(masks)
            files["motion"][video] = motion(masks)
            for k, caption in enumerate(captions):
                files["plain"][f"{video}#{k}"] = plain(caption)
                files["context"][f"{video}#{k}"] = context(caption)
    for each in files.values():
        each.close()


def settings(folder: Path, experts: Path | None = None) -> dict[str, object]:
    """The sections `data` and `features` of a configuration for it.

    Args:
        experts: where the modalities' files are, if elsewhere.
    """
    return {
        "data": {"captions": str(folder / "captions.csv")},
        "features": {
            "folder": "features" if experts is None else f"features-{experts.name}",
            "experts": [{"name": name, "file": str((experts or folder) / f"{name}.h5")} for name in MODALITIES],
            "texts": [{"name": name, "file": str(folder / f"{name}.h5")} for name in ENCODERS],
        },
    }


def shuffle_features(folder: Path, to: Path, seed: int) -> None:
    """Write files of the modalities in which every training clip has those of another; the others keep theirs."""
    to.mkdir(parents=True, exist_ok=True)
    for name in MODALITIES:
        with h5py.File(folder / f"{name}.h5") as own, h5py.File(to / f"{name}.h5", "w") as file:
            order = [video for video in own if video.startswith("train")]
            drawn = dict(zip(order, np.random.default_rng(seed).permutation(order).tolist(), strict=True))
            for video in own:
                file[video] = own[drawn.get(video, video)][:]


def drawn_clips(clips: Mapping[str, int], seed: int) -> Iterator[tuple[str, str, NDArray[np.uint8], tuple[str, ...]]]:
    """Name, split, frames and captions of every clip; each has a random generator of its own."""
    for number, split in enumerate(("train", "val", "test")):
        for k in range(clips[split]):
            clip = make_clip(np.random.default_rng([seed, number, k]), SIZE, unseen=split != "train")
            yield f"{split}{k:05d}", split, clip.frames, clip.captions


def colour_masks(frames: NDArray[np.uint8]) -> Array:
    """Which pixels are of which palette colour [F, S, S, 8]."""
    palette = np.array(list(COLOURS.values()), np.float32)
    pixels = frames.astype(np.float32)
    squares = (pixels**2).sum(axis=-1, keepdims=True) - 2 * pixels @ palette.T + (palette**2).sum(axis=-1)
    nearest = squares.argmin(axis=-1)[..., None] == np.arange(len(palette))
    return (nearest & (squares < NEAR**2)).astype(np.float32)


def look(masks: Array) -> Array:
    """The share of each colour in each cell of a grid [F, 72], to the root."""
    frames, size, _, colours = masks.shape
    edges = np.linspace(0, size, _CELLS + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(masks, edges, axis=1), edges, axis=2)
    return np.sqrt(sums.reshape(frames, _CELLS * _CELLS * colours) / (size / _CELLS) ** 2)


def motion(masks: Array) -> Array:
    """Of each colour that is in two frames: where its middle went, and that it is there [F - 1, 24]."""
    size, share = masks.shape[1], masks.mean(axis=(1, 2))
    places = (np.arange(size, dtype=np.float32) + 0.5) / size
    count = np.maximum(masks.sum(axis=(1, 2)), 1)
    x = np.einsum("fyxc,x->fc", masks, places) / count
    y = np.einsum("fyxc,y->fc", masks, places) / count
    there = np.minimum(share[1:], share[:-1]) > LEAST
    parts = [np.where(there, np.diff(x, axis=0), 0), np.where(there, np.diff(y, axis=0), 0), there * 0.2]
    return 5 * np.concatenate(parts, axis=1).astype(np.float32)


def plain(caption: str) -> Array:
    """A random vector for every word [W, 32]."""
    return np.stack([_vector(word) for word in words_of(caption)])


def context(caption: str) -> Array:
    """For every word its meaning, and the mean of those around it [W, 64]."""
    own = np.stack([_vector(_SYNONYMS.get(word, word)) for word in words_of(caption)])
    around = [own[max(0, k - AROUND) : k + AROUND + 1].mean(axis=0) for k in range(len(own))]
    return np.concatenate([own, np.stack(around)], axis=1)


def words_of(caption: str) -> list[str]:
    return caption.replace(",", " ,").split()


def _vector(word: str) -> Array:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    found = np.random.default_rng(seed).standard_normal(PLAIN).astype(np.float32)
    return found / np.linalg.norm(found)
