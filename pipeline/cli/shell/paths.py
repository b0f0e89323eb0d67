"""Paths of the command line: something else given for a score store, and where a page or a table is to be written."""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import typer

from ....errors import ConfigError

DEMO = "demo.yaml"  # the configuration in a demo's folder


def settings_inside(where: Path) -> Path:
    """A demo's configuration, where its folder is given."""
    return where / DEMO if (where / DEMO).is_file() else where


def store_to_read(word: str) -> str:
    """A STORE that is to be read, or an address.

    Raises:
        typer.BadParameter: it is a configuration, or a local folder that is no store, with the store that is near.
    """
    path = Path(any_store(word))
    if "://" in word or (path / "zarr.json").exists():
        return word
    if path.is_dir():
        inside = [each for each in sorted(path.glob("*")) if (each / "zarr.json").is_file()]
        named = [each for each in inside if each.suffix == ".zarr"]
        if named:
            raise typer.BadParameter(
                f"{word} is a folder, no score store; did you mean {' or '.join(map(str, named))}?"
            )
    elif not path.exists():
        beside = {each.name: each for each in path.parent.glob("*.zarr")}
        if near := get_close_matches(path.name, beside, n=1, cutoff=0.5) or list(beside)[:1]:
            raise typer.BadParameter(f"there is no {word}; did you mean {beside[near[0]]}?")
    return word


def any_store(word: str) -> str:
    """A STORE, there or not.

    Raises:
        typer.BadParameter: it is a configuration; names its store.
    """
    if word.endswith((".yaml", ".yml")) and Path(word).is_file():
        try:
            from ....configs.loading import load_config

            store = f", whose store is {load_config(Path(word)).score_store}"
        except ConfigError:
            store = ""
        raise typer.BadParameter(f"STORE is a folder of scores, and {word} is a configuration{store}")
    return word


def refuse_configs(runs: Iterable[Path]) -> None:
    """Refuse configurations where run folders are asked for.

    Raises:
        ConfigError: names the run folder.
    """
    for path in runs:
        if path.suffix in (".yaml", ".yml") and path.is_file():
            from ....configs.loading import load_config

            run = load_config(path).run_folder
            raise ConfigError("this is a configuration, no run folder", where=str(path), hint=f"its run is {run}")


def out_file(path: Path | None) -> None:
    """Refuse, before anything is done, to write where no file can be made.

    Raises:
        ConfigError: its folder is not there, or it is a folder itself.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError("this is a folder; --out names the file to be written", where=str(path))
    if not path.parent.is_dir():
        made = f"mkdir -p {shlex.quote(str(path.parent))}"
        raise ConfigError(f"there is no folder {path.parent}", where=f"--out {path}", hint=f"make it first: {made}")
