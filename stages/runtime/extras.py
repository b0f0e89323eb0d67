"""Libraries that only an extra of the package installs."""

import importlib.util

from ...errors import ConfigError


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
