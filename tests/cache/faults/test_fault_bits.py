"""Flipped bits, anywhere in a store: none goes unnoticed; which reader notices what."""

import os
import random
import shutil
from collections import Counter
from itertools import count
from pathlib import Path

import pytest


def kind(path: Path) -> str:
    """What a file is, for the table."""
    if "videos" in path.parts:
        return "identity of features" if path.name == "identity.json" else "features"
    if "done" in path.parts:
        return "markers"
    if path.name == "zarr.json":
        return "array metadata" if path.parent.parent.name == "dense" else "group metadata"
    name = path.parent.name
    return name if name in ("coarse", "coarse_codec", "fine") else "static arrays"


def flip_bits(path: Path, writers, flips: int, seed: int) -> Counter[tuple[str, str]]:
    """Flip one bit at a time: each file is as likely as another, and in it each bit; kind of file, first to notice."""
    rng, clock = random.Random(seed), count(10**18, 10**6)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    assert len({kind(file) for file in files}) == 9
    found: Counter[tuple[str, str]] = Counter()

    def put(file: Path, data: bytes) -> None:
        file.write_bytes(data)
        now = next(clock)
        os.utime(file, ns=(now, now))  # two flips within one tick of the clock are two files to TensorStore

    for _ in range(flips):
        file = rng.choice(files)
        data = file.read_bytes()
        bit = rng.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        put(file, bytes(flipped))
        found[kind(file), writers.first_to_notice(path)] += 1
        assert writers.verified(path), (file, bit)
        put(file, data)
    assert writers.first_to_notice(path) == "nobody"
    return found


def test_flipped_bits_are_noticed(writers, reference, tmp_path: Path) -> None:
    shutil.copytree(reference, tmp_path / "s.zarr")
    found = flip_bits(tmp_path / "s.zarr", writers, 300, seed=2)
    assert sum(found.values()) == 300
    assert not [file for file, who in found if who == "nobody"]
    assert {file for file, who in found if who == "verify"} <= {"identity of features"}
    assert {file for file, who in found if who == "resume"} <= {"features"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_flipped_bits(writers, reference, tmp_path: Path, record_testsuite_property) -> None:
    shutil.copytree(reference, tmp_path / "s.zarr")
    found = flip_bits(tmp_path / "s.zarr", writers, 10_000, seed=1)
    assert not [file for file, who in found if who == "nobody"]
    record_testsuite_property(
        "flipped bits", "; ".join(f"{file}, {who}: {n}" for (file, who), n in sorted(found.items()))
    )
