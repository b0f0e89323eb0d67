"""Code of the user's own, named in a configuration: a teacher, a loss."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from ..errors import ConfigError


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


def _from_module(module: str, name: str, spec: str, key: str) -> Any:
    here = os.getcwd()
    sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises when it is imported
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
    except Exception as error:
        raise _not_loaded(spec, key, error) from error


def _not_loaded(spec: str, key: str, error: Exception) -> ConfigError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return ConfigError(
        f"{key}: {spec} cannot be loaded",
        details=[f"{type(error).__name__}: {error}", f"{last.filename}:{last.lineno}"],
        hint="modules are looked for where Python looks, and in the current folder",
    )
