"""What else is given where a configuration is asked for: a folder, a video, captions, a sweep, what a run wrote."""

import mimetypes
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from ...errors import ConfigError
from ...remedies import Hint, Remedy, RunSweep, Template
from ..schema import Config

CONFIG_IS = "a configuration is a YAML file that names your captions and your settings"
SWEEP_KEYS = {"base", "grid", "runs"}
_ENDINGS = (".yaml", ".yml")
_CAPTIONS = (".csv", ".tsv", ".jsonl")
_RECORDS = ("run.json", "result.json", "environment.json", "metrics.jsonl")
_NEW = "own_videos.yaml"


def refuse_by_kind(path: Path, wanted: str = CONFIG_IS, helps: Hint | None = None) -> None:
    """Refuse what is no YAML file by what it is on the disk.

    Args:
        wanted: what is asked for, in words; helps: where it is no configuration, how one comes to have it.

    Raises:
        ConfigError: a folder, a run's record, a caption file, a video or another file that is no text.
    """
    hint: Hint
    if path.is_dir():
        what, hint = _folder(path)
    elif not path.is_file():
        return
    elif path.name in _RECORDS and (path.parent / "config.yaml").is_file():
        what, hint = "what a run wrote of itself", f"its configuration is {path.parent / 'config.yaml'}"
    elif path.suffix.lower() in _CAPTIONS:
        what, hint = "a caption file", _template("name it in one, as data.captions; write one to start from")
    elif kind := _kind(path):
        what, hint = kind, _template("write one to start from")
    else:
        return
    raise ConfigError(f"this is {what}; {wanted}", where=str(path), hint=helps or hint)


def refuse_by_keys(path: Path, keys: Collection[str]) -> None:
    """Refuse YAML files that are no configuration by the keys they hold.

    Raises:
        ConfigError: a sweep, or a file none of whose keys resembles a section's.
    """
    sections = [*Config.model_fields, "extends"]
    if not keys or set(keys) & set(sections):
        return
    if set(keys) & SWEEP_KEYS:
        hint = Remedy("run it", RunSweep(str(path)))
        raise ConfigError("this is a sweep, which names a configuration as its base", where=str(path), hint=hint)
    if len(keys) > 1 and not any(get_close_matches(key, sections, n=1) for key in keys):
        held = ", ".join(list(keys)[:3]) + (", ..." if len(keys) > 3 else "")
        what = f"this is no configuration: it holds {held}, and none of the sections {', '.join(Config.model_fields)}"
        raise ConfigError(what, where=str(path), hint=_template("write one to start from"))


def absent(path: Path, near: str) -> ConfigError:
    """The error of a configuration that is not there; `near`: the words for a name that resembles it."""
    if path.suffix.lower() in _ENDINGS:
        hint = Remedy("write one to start from", Template(str(path)))
        return ConfigError(f"no such file{near}", where=str(path), hint=hint)
    found = sorted(str(file) for ending in _ENDINGS for file in path.parent.glob(f"*{ending}"))
    meant = f"did you mean {' or '.join(found[:3])}?" if found else _template("write one to start from")
    return ConfigError(f"no such file{near}; {CONFIG_IS}", where=str(path), hint=meant)


def _template(advice: str) -> Hint:
    """What writes one; a file that is there is not written over."""
    return Remedy(advice, Template(None if Path(_NEW).exists() else _NEW))


def _folder(path: Path) -> tuple[str, Hint]:
    if (path / "run.json").is_file():
        return "a run folder", f"its configuration is {path / 'config.yaml'}"
    if (path / "zarr.json").is_file():
        return "a score store", _template("name it in one, as score.store; write one to start from")
    found = sorted(file for ending in _ENDINGS for file in path.glob(f"*{ending}"))
    if found:
        return "a folder", f"did you mean {' or '.join(map(str, found[:3]))}?"
    return "a folder", _template("write one to start from")


def _kind(path: Path) -> str:
    """What a file is that holds no text; nothing where it holds some."""
    try:
        with path.open("rb") as file:
            file.read(4096).decode("utf-8")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return ""
        kind, _ = mimetypes.guess_type(path.name)
        if path.suffix.lower() in _ENDINGS:
            return ""  # a configuration with a letter that is none: reading it says where
        return (
            "a video"
            if kind and kind.startswith("video/")
            else f"no text (byte {error.object[error.start]:#04x} at {error.start})"
        )
    except OSError:
        return ""
    return ""
