"""Whether anything fits a sentence: what leads by far does, what is as near as words without meaning does not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from teachclip.stages.search.index_search import VideosFound, search_index
from teachclip.stages.search.serving import open_index
from teachclip.stages.search.serving.nothing_fits import FEWEST, LEAST, NOTHING_FITS, Usual
from teachclip.stages.search.serving.open_index import Filters, OpenIndex

from ..library.conftest import Index, draw
from ..library.conftest import drawn as drawn
from ..library.conftest import index as index
from ..library.conftest import indexed_once as indexed_once
from ..library.conftest import root as root

WIDTH = 32


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def windows() -> np.ndarray:
    """Unit vectors of 200 windows about one direction."""
    return unit(np.random.default_rng(0).normal(size=(200, WIDTH)) + 1.0).astype(np.float32)


def test_a_sentence_leads_whose_window_is_there(windows: np.ndarray) -> None:
    meaningless = unit(np.random.default_rng(1).normal(size=(16, WIDTH)) / 2 + 1.0).astype(np.float32)
    usual = Usual.of(windows, meaningless, (meaningless @ windows.T).max(1).tolist())
    assert usual.windows == 200
    leads = [usual.lead_of(each, float((windows @ each).max())) for each in meaningless]
    assert np.mean(leads) == pytest.approx(1.0, abs=1e-5)
    assert usual.lead_of(windows[3], 1.0) > LEAST
    half = unit(windows[3] + 3.0 * windows.mean(0))
    assert usual.lead_of(half, float((windows @ half).max())) < LEAST


def test_among_windows_that_are_all_the_same_nothing_is_told() -> None:
    windows = np.ones((30, WIDTH), np.float32) / np.sqrt(WIDTH)
    usual = Usual.of(windows, windows[:16], [1.0] * 16)
    assert not usual.lead_of(windows[0], 1.0) < LEAST
    assert not usual.lead_of(windows[0], 1.0) >= LEAST


@pytest.fixture
def told(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The index of nine windows, which are enough."""
    monkeypatch.setattr(open_index, "FEWEST", 9)
    return root


def asked(root: Path) -> VideosFound:
    return search_index(root / "index", ["a dog runs on the beach"], 1, device="cpu").queries[0]


@pytest.mark.parametrize(("least", "fits"), [(-np.inf, True), (np.inf, False)])
def test_an_answer_says_whether_it_fits(told: Path, monkeypatch: pytest.MonkeyPatch, least: float, fits: bool) -> None:
    monkeypatch.setattr(open_index, "LEAST", least)
    assert asked(told).fits is fits
    index = OpenIndex.open(told / "index", device="cpu")
    assert (NOTHING_FITS in index.sentence("a dog").notes) is not fits
    assert index.like(int(index.library.rows[0])).fits is None
    assert index.sentence("a dog", filters=Filters(tag="none")).fits is None
    assert index.sentence(" dog").fits is None
    index.close()


def test_few_windows_tell_nothing(root: Path) -> None:
    assert FEWEST > 9
    assert asked(root).fits is None


def test_what_is_usual_is_measured_again_when_the_index_has_changed_much(
    told: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    class Counted(Usual):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            measured.append(self.windows)

    monkeypatch.setattr(open_index, "Usual", Counted)
    monkeypatch.setattr(open_index, "REFRESH_SECONDS", 0.0)
    opened = OpenIndex.open(told / "index", device="cpu")
    opened.sentence("a dog")
    opened.sentence("a cat")
    assert measured == [9]
    draw(told / "clips/new.mp4", 100, 7)
    index()
    opened.sentence("a dog")
    assert measured == [9, len(opened.library)]
    opened.close()
