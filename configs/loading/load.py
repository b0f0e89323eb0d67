"""YAML files and `--set` arguments -> one checked `Config`.

A file may say `extends:` with the name of a shipped YAML (`recipes/official`), a path ending in .yaml that starts at
its own folder, or a list of these: later ones win over earlier ones, the file wins over all of them, `--set` over the
file. Relative paths start where `schema.FILE_PATHS` and `schema.CHECKPOINT_PATHS` say.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml
from pydantic import ValidationError

from ...errors import ConfigError, printable
from ...plurals import counted
from ...remedies import Change, Hint, Remedy, Template
from ..changed_defaults import CHANGED_DEFAULTS
from ..schema import CHECKPOINT_PATHS, FILE_PATHS, READ_PATHS, Config, Section, cut_name
from .messages import config_error, nearest
from .other_files import absent, refuse_by_keys, refuse_by_kind
from .yaml_lines import Dumper, Marked, Plain, YamlPlace, merge, parse_yaml

SHIPPED = Path(__file__).parents[1]
MAX_BYTES = 1 << 20


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of `path` (None: the defaults), changed by `overrides`, its paths absolute.

    Args:
        path: a YAML file.
        overrides: `--set` arguments, `train.batch_size=64`; paths in them start at the current folder.

    Raises:
        ConfigError: names the file and line or the override, the offending value and the nearest valid name.
    """
    return checked(_resolved(read_given(path, overrides)))


def read_given(path: Path | None, overrides: Sequence[str] = ()) -> Marked:
    """What `path`, the files it extends and `overrides` set, each value with its place; not checked, nothing resolved.

    Raises:
        ConfigError: a file cannot be read, or an override is not key=value.
    """
    here = Path.cwd()
    given = Marked({}, YamlPlace("defaults", here)) if path is None else _read_file(path, ())
    for override in overrides:
        given = _override(given, override, here)
    return _filled(given, Config)


def with_changes(given: Marked, changes: Sequence[tuple[str, Marked]]) -> Config:
    """The configuration of what was given, with values set by dotted key, later ones over earlier; paths absolute.

    Args:
        changes: values with their places; a relative path among them starts at its place's folder.

    Raises:
        ConfigError: see `load_config`.
    """
    for key, value in changes:
        given = _assigned(given, key.split("."), value)
    return checked(_resolved(_filled(given, Config)))


def read_document(path: Path, hint: Hint, wanted: str) -> Marked:
    """A YAML file that is no configuration of stages, and extends nothing; each value with its place.

    Args:
        hint: where to learn how it is written, told when there is no such file.
        wanted: what it is, told when another kind of file or a folder is named.

    Raises:
        ConfigError: it cannot be read, or holds no keys.
    """
    refuse_by_kind(path, wanted, hint)
    given = parse_yaml(_text(path, hint), YamlPlace(str(path), path.parent.absolute()))
    if not isinstance(given.value, dict):
        raise ConfigError("it should hold keys and values", where=str(given.place), hint=hint)
    return given


def checked(given: Marked) -> Config:
    """The configuration of what was given, paths as they stand.

    Raises:
        ConfigError: see `load_config`.
    """
    raw: dict[str, Path] = {}
    for keys, text in _not_utf_8(given.plain()):
        if ".".join(keys) not in READ_PATHS:
            raise _unusable(keys, text, given)
        raw[keys[-1]] = Path(text)
        given = _changed(given, keys, lambda path, _: Path(printable(str(path))))
    try:
        config = Config.model_validate_json(json.dumps(_named_by_users(given).plain()), strict=True)
    except ValidationError as error:
        raise config_error(error, given) from None
    return config.model_copy(update={"data": config.data.model_copy(update=raw)}) if raw else config


def _named_by_users(given: Marked) -> Marked:
    """Without the keys whose default changed where `recipes/default` alone gives them: nobody has named these."""
    for key in CHANGED_DEFAULTS:
        keys = tuple(key.split("."))
        if Path(given.find(keys).place.source) == SHIPPED / "recipes/default.yaml":
            given = _without(given, keys)
    return given


def _without(given: Marked, keys: Sequence[str]) -> Marked:
    first, rest = keys[0], keys[1:]
    if not isinstance(given.value, dict) or first not in given.value:
        return given
    kept = {name: child for name, child in given.value.items() if name != first}
    return replace(given, value=kept | {first: _without(given.value[first], rest)} if rest else kept)


def _not_utf_8(value: Plain, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Texts that JSON cannot hold, with the keys that lead to them: paths that are not UTF-8."""
    if isinstance(value, str) and printable(value) != value:
        yield above, value
    elif isinstance(value, dict | list):
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in children:
            yield from _not_utf_8(child, (*above, str(key)))


def _unusable(keys: Sequence[str], text: str, given: Marked) -> ConfigError:
    """What is made, and networks, lie in paths that other libraries open, which take UTF-8 alone."""
    key = ".".join(keys)
    elsewhere = Change({"work": "/other/folder"}) if key == "work" else None
    return ConfigError(
        f"{key}: {text} is not UTF-8: what opens it takes no other names",
        where=str(given.find(tuple(keys)).place),
        hint=Remedy("name a folder whose whole path is UTF-8, or rename this one", elsewhere),
    )


def dump_config(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal one."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def shipped() -> dict[str, Path]:
    """The YAMLs that come with the package, by the name that `extends` calls them."""
    paths = (path for path in sorted(SHIPPED.rglob("*.yaml")) if path.parent.name != "tables")  # those are sweeps
    return {path.relative_to(SHIPPED).with_suffix("").as_posix(): path for path in paths}


def named(name: str) -> Path:
    """The YAML that `name` means: one that comes with the package (`recipes/official`), else a file.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name).expanduser()
    if name in shipped() and not path.is_file():
        return shipped()[name]
    if path.exists() or name.endswith((".yaml", ".yml")):
        return path
    raise ConfigError(
        f"neither a file nor a YAML that comes with teachclip{nearest(name, list(shipped()))}", where=name,
        hint=f"Shipped: {', '.join(shipped())}",
    )  # fmt: skip


def _read_file(path: Path, above: tuple[Path, ...]) -> Marked:
    refuse_by_kind(path)
    place = YamlPlace(str(path), path.parent.absolute())
    given = parse_yaml(_text(path), place)
    if given.value is None:
        return Marked({}, place)
    if not isinstance(given.value, dict):
        raise ConfigError(
            "not a configuration: it should hold sections with keys and values", where=str(given.place),
            hint=Remedy("print one to start from", Template()),
        )  # fmt: skip
    refuse_by_keys(path, given.value.keys())
    sections = dict(given.value)
    extends = sections.pop("extends", None)
    own = _filled(Marked(sections, place), Config)
    if extends is None:
        return own
    line = (*above, path.resolve())
    base = Marked({}, place)
    for entry in extends.value if isinstance(extends.value, list) else [extends]:
        base = merge(base, _read_file(_extended(entry, path.parent, line), line))
    return merge(base, own)


def _text(path: Path, hint: Hint | None = None) -> str:
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise ConfigError("too large to be a configuration", where=str(path))
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        if hint is None:
            raise absent(path, near) from None
        raise ConfigError(f"no such file{near}", where=str(path), hint=hint) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ConfigError(
            f"not text: byte {byte:#04x} at {error.start}",
            where=str(path),
            hint="save it as UTF-8; in a path, a byte that is not UTF-8 is written in double quotes as "
            f'"\\udc{byte:02x}"',
        ) from None


def _extended(entry: Marked, folder: Path, above: tuple[Path, ...]) -> Path:
    name, where = entry.value, str(entry.place)
    if not isinstance(name, str):
        raise ConfigError("extends: give a name, a path or a list of these", where=where)
    if name.endswith((".yaml", ".yml")):
        path = folder / _home(name)
        if not os.path.exists(path):
            raise ConfigError(f"extends: no such file {str(path)!r}", where=where)
    elif name in shipped():
        path = shipped()[name]
    else:
        raise ConfigError(
            f"extends: {name!r} does not come with teachclip{nearest(name, list(shipped()))}", where=where,
            hint=f"Shipped: {', '.join(shipped())}. A file of your own ends in .yaml.",
        )  # fmt: skip
    if path.resolve() in above:
        circle = " -> ".join(file.name for file in (*above[above.index(path.resolve()) :], path))
        raise ConfigError(f"extends: goes in a circle, {circle}", where=where)
    return path


def _override(given: Marked, override: str, here: Path) -> Marked:
    place = YamlPlace(f"--set {override}", here)
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError("give it as key=value", where=str(place), hint="for example: train.batch_size=64")
    if printable(text) != text:  # a path that is not UTF-8, which YAML takes as escapes alone
        text = json.dumps(text)
    return _assigned(given, keys, parse_yaml(text, place, count_lines=False))


def _assigned(given: Marked, keys: Sequence[str], value: Marked) -> Marked:
    if not keys:
        return merge(given, value)
    first, rest = keys[0], keys[1:]
    nothing = Marked(None, value.place)
    if isinstance(given.value, list) and first.isdecimal() and len(first) < 10:
        if int(first) >= len(given.value):
            told = counted(len(given.value), "entry is", "entries are")
            raise ConfigError(f"{told} there, counted from 0", where=str(value.place))
        entries = list(given.value)
        entries[int(first)] = _assigned(entries[int(first)], rest, value)
        return replace(given, value=entries)
    section = given.value if isinstance(given.value, dict) else {}
    return Marked(section | {first: _assigned(section.get(first, nothing), rest, value)}, given.place)


def _filled(given: Marked, section: type[Section]) -> Marked:
    """A section without keys (all of them commented out) reads as null; here it becomes an empty section."""
    if not isinstance(given.value, dict):
        return given
    children = dict(given.value)
    for name, field in section.model_fields.items():
        below = field.annotation
        if name in children and isinstance(below, type) and issubclass(below, Section):
            child = children[name]
            children[name] = replace(child, value={}) if child.value is None else _filled(child, below)
    return replace(given, value=children)


def _resolved(given: Marked) -> Marked:
    """Paths that start at a file's folder made absolute; those of `by_default` also where they are not given."""
    data = {name: Marked(str(getattr(Config().data, name)), given.place) for name in ("captions", "annotations")}
    by_default = {"work": Marked(str(Config().work), given.place), "data": Marked(data, given.place)}
    given = merge(Marked(by_default, given.place), given)
    for key in FILE_PATHS:
        given = _changed(given, key.split("."), lambda text, folder: folder / text)
    work = given.find(("work",)).value
    for key in CHECKPOINT_PATHS:
        choose = {"weights": _weights, "model": _model}.get(key.rpartition(".")[2], _checkpoint)
        given = _changed(given, key.split("."), partial(choose, work=Path(str(work))))
    return given


def _changed(given: Marked, keys: Sequence[str], change: Callable[[Path, Path], Path]) -> Marked:
    """The text at `keys` (`*`: each entry of a list) passed with its place's folder through `change`."""
    if not keys:
        text = given.value
        return replace(given, value=str(change(_home(text), given.place.folder))) if isinstance(text, str) else given
    first, rest = keys[0], keys[1:]
    if first == "*" and isinstance(given.value, list):
        return replace(given, value=[_changed(entry, rest, change) for entry in given.value])
    if isinstance(given.value, dict) and first in given.value:
        return replace(given, value=given.value | {first: _changed(given.value[first], rest, change)})
    return given


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~nobody`: no such user, so it is the name of a folder
        return Path(text)


def _checkpoint(path: Path, folder: Path, work: Path) -> Path:
    """A model beside the YAML, also where it is cut (`NAME@64`); any other is one below `work`, or a shared one."""
    beside = (folder / path, folder / cut_name(str(path))[0])
    return folder / path if any(map(os.path.exists, beside)) else path


def _weights(path: Path, folder: Path, work: Path) -> Path:
    """A weights file or run folder beside the YAML or below `work`; any other text is an open_clip tag."""
    return next((place for place in (folder / path, work / path) if _has_weights(place)), path)


def _model(path: Path, folder: Path, work: Path) -> Path:
    """A model's folder beside the YAML or below `work`; any other text is a name on the hub, or a class."""
    return next((place for place in (folder / path, work / path) if os.path.isdir(place)), path)


def _has_weights(path: Path) -> bool:
    return os.path.isfile(path) or os.path.isfile(path / "best.safetensors")
