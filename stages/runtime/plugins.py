"""Code that need not be there: the user's own, named in a configuration, and libraries that only an extra installs."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, cast

import torch

from ...errors import ConfigError, PluginError, TeachclipError
from ...remedies import Again, Option, Remedy

_NOT_THE_USERS = (__file__, importlib.__file__)


def needs(package: str, extra: str, where: str | None = None, what: str = "this", instead: str = "") -> None:
    """Refuse what is asked for where its library is not installed.

    Args:
        package: as it is imported; extra: what installs it.
        where: the setting or the place that asks for it; what: is asked for.
        instead: what helps as well, in words.

    Raises:
        ConfigError: it is not installed; names the extra.
    """
    if importlib.util.find_spec(package) is None:
        hint = f"install it with the extra: pip install 'teachclip[{extra}]'{instead and f'; or {instead}'}"
        raise ConfigError(f"{what} needs {package.replace('_', '-')}, which is not installed", where=where, hint=hint)


def load_plugin(spec: str, group: str, key: str) -> Callable[..., Any]:
    """The class or function that `spec` names: `module:name`, or an entry point of `group`.

    Modules are looked for where Python looks, and last in the current folder.

    Args:
        key: the configuration's key, for messages.

    Raises:
        ConfigError: there is none, it cannot be imported, or it cannot be called.
    """
    module, colon, name = spec.partition(":")
    found = _from_module(module, name, spec, key) if colon else _from_entry_point(spec, group, key)
    if not callable(found):
        raise ConfigError(f"{key}: {spec} is a {type(found).__name__}, neither a class nor a function")
    return cast(Callable[..., Any], found)


@contextmanager
def users_code(what: str, plugin: Callable[..., Any]) -> Iterator[None]:
    """Tell an exception raised in the user's code as such: what was called, what was raised, and in which line.

    Args:
        what: what is called, for the message.
        plugin: the class or function of `load_plugin`; of all lines on the way, the last one in its file is named.

    Raises:
        PluginError: in place of whatever was raised, but for our own errors and a lack of memory.
    """
    try:
        yield
    except (TeachclipError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{what} failed",
            details=_told(error, plugin),
            hint=Remedy("look at the whole traceback", Again(Option.TRACEBACK)),
        ) from error


def _from_module(module: str, name: str, spec: str, key: str) -> Any:
    here = os.getcwd()
    sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises when it is imported
        raise _not_loaded(spec, key, error) from error
    finally:
        sys.path.remove(here)


def _from_entry_point(spec: str, group: str, key: str) -> Any:
    known = {entry.name: entry for entry in entry_points(group=group)}
    if spec not in known:
        have = ", ".join(sorted(known)) or "none is installed"
        raise ConfigError(f"{key}: no entry point {spec!r} in {group} ({have})", hint="or name it as module:Class")
    try:
        return known[spec].load()
    except (Exception, SystemExit) as error:
        raise _not_loaded(spec, key, error) from error


def _not_loaded(spec: str, key: str, error: BaseException) -> ConfigError:
    return ConfigError(
        f"{key}: {spec} cannot be loaded",
        details=_told(error),
        hint=f"without .py: {spec.replace('.py:', ':')}"
        if ".py:" in spec
        else "modules are looked for where Python looks, and in the current folder",
    )


def _told(error: BaseException, plugin: Callable[..., Any] | None = None) -> list[str]:
    """What was raised, and file:line of the user's code when it was raised there."""
    lines = [f"{type(error).__name__}: {error}"]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in _NOT_THE_USERS and not frame.filename.startswith("<frozen ")
    ]
    own = [frame for frame in frames if frame.filename == _file_of(plugin)]
    if last := (own or frames)[-1:]:
        lines.append(f"{last[0].filename}:{last[0].lineno}, in {last[0].name}")
    return lines


def _file_of(plugin: Callable[..., Any] | None) -> str | None:
    try:
        return None if plugin is None else inspect.getsourcefile(plugin)
    except TypeError:  # built in, or an object that is called
        return None
