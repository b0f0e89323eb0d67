"""A store's scores beside what its teacher says today: agreement to rounding, and what does not agree is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from teachclip.cache.frames.cache import FrameCache
from teachclip.cache.scores.reading.tile_rows import TileRows
from teachclip.cache.scores.shard import marker_path, write_shard
from teachclip.cache.scores.store import ScoreStore
from teachclip.errors import CacheMismatchError, ConfigError
from teachclip.stages.data.dataset import read_dataset
from teachclip.stages.data.usable_split import usable_split
from teachclip.stages.runtime.reporting import Silent
from teachclip.stages.score.rescore import choose_sample, rescore
from typer.testing import CliRunner


@pytest.mark.parametrize("store", ["scores.zarr", "exact.zarr"])
@pytest.mark.parametrize("sample", [5, 100])
def test_a_store_agrees_with_its_teacher(world, store: str, sample: int) -> None:
    config = world.config(score={"store": store})
    (found,) = rescore(config, None, sample, 0, Silent())
    texts = 28  # two captions of each of 14 training videos
    assert (found.teacher, found.texts, found.videos) == ("xclip", min(sample, texts), min(sample, 14))
    assert found.agrees
    assert found.largest <= found.allowed
    assert found.frames_largest <= found.frames_allowed
    if store == "exact.zarr":
        assert found.allowed == pytest.approx(2e-5, rel=1e-6)
        assert found.rank1_disagree == 0


def _altered(world, folder: Path) -> Path:
    """A copy of the exact store in which one score of every caption is another, all checksums right."""
    shutil.copytree(world.root / "work/exact.zarr", folder / "altered.zarr")
    tile = ScoreStore.open(folder / "altered.zarr").teacher("xclip").tiles[0]
    for shard in range(tile.spec.shards):
        rows = np.array(tile.spec.rows(shard))
        scores, frames = TileRows(tile).scores(rows), TileRows(tile).read("fine", rows)
        marker_path(tile, shard).unlink()
        scores[np.arange(len(rows)), rows % scores.shape[1]] += np.float32(1e-3)
        write_shard(tile, shard, scores, frames)
    return folder / "altered.zarr"


def test_scores_that_were_altered_are_found(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from teachclip.configs.loading import dump_config
    from teachclip.pipeline.cli.main import app

    store = _altered(world, tmp_path)
    config = world.config(score={"store": store})
    (found,) = rescore(config, "xclip", 100, 0, Silent())
    assert not found.agrees
    assert found.largest == pytest.approx(1e-3, rel=0.05)
    (tmp_path / "c.yaml").write_text(dump_config(config))
    command = ["cache", "verify", str(store), "--rescore", "100"]
    result = CliRunner().invoke(app, [*command, "--config", str(tmp_path / "c.yaml"), "--quiet"])
    assert result.exit_code == 1
    assert "says something else now than the store" in result.stdout
    monkeypatch.chdir(world.root)  # a store is named as the shell names files, from the current folder
    honest = ["cache", "verify", "work/exact.zarr", "--rescore", "9", "--config"]
    assert CliRunner().invoke(app, [*honest, str(tmp_path / "c.yaml"), "--quiet"]).exit_code == 0
    assert CliRunner().invoke(app, command).exit_code == 2  # nobody is named who could score


def test_another_teacher_is_not_asked(world) -> None:
    teachers = [{"name": "xclip", "openclip": {"sizes": world.config().train.network.trunk.sizes.model_dump(),
                                               "weights": "runs/xclip"}, "frames": 4, "words": 10}]  # fmt: skip
    teachers[0]["openclip"]["weights"] = str(world.root / "work/runs/xclip")
    with pytest.raises(CacheMismatchError, match="weights"):
        rescore(world.config(score={"teachers": teachers}), "xclip", 5, 0, Silent())
    with pytest.raises(ConfigError, match=r"score\.teachers does not name 'else'"):
        rescore(world.config(), "else", 5, 0, Silent())


def test_the_sample_is_the_seeds_and_of_one_group(world) -> None:
    config = world.config()
    frames = FrameCache.open(config.frames_folder)
    split = usable_split(read_dataset(config.data), ["train"], frames)
    first, again, other = (choose_sample(split, None, 6, seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert first[0].tolist() != other[0].tolist()
    assert set(split.text_video[first[0]]) <= set(first[1])
    groups = split.text_video % 2
    texts, videos = choose_sample(split, groups, 100, 3)
    assert len(set(groups[texts])) == 1
    assert set(videos) == set(split.text_video[texts])


def test_extend_needs_a_store(world, tmp_path: Path) -> None:
    from teachclip.configs.loading import dump_config
    from teachclip.pipeline.cli.main import app

    (tmp_path / "c.yaml").write_text(dump_config(world.config()))
    arguments = ["cache", "extend", str(tmp_path / "c.yaml"), "--quiet"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "xclip" in done.stdout
    gone = CliRunner().invoke(app, [*arguments, "--set", "score.store=nowhere.zarr"])
    assert gone.exit_code == 1
    assert not (world.root / "work/nowhere.zarr").exists()
