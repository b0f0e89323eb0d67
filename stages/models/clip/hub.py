"""The Hugging Face hub, from which open_clip's weights come: what is here already, and whether it answers at all.

Left to itself, the hub's library tries six times to reach a server that is not there, and logs every time; open_clip
does that for two names of one file, which takes 47 s without a network.
"""

import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

HUB = "hf-hub:"
"""Before the name of a repository on the hub: `hf-hub:org/repo`."""

PATIENCE = 4.0
"""Seconds in which the hub has to answer."""

_WEIGHTS = "open_clip_pytorch_model.bin"
_SAFE_WEIGHTS = "open_clip_model.safetensors"


def cached_weights(place: str) -> Path | None:
    """The file of open_clip's weights that was fetched before.

    Args:
        place: as open_clip's catalog has it: `org/repo/`, or `org/repo/file`.
    """
    repository, file = os.path.split(place)
    file = file or _WEIGHTS
    safe = _SAFE_WEIGHTS if file == _WEIGHTS else f"{Path(file).stem}.safetensors"
    return cached_file(repository, safe) or cached_file(repository, file)


def cached_file(repository: str, file: str) -> Path | None:
    """A file of a repository that was fetched before.

    Raises:
        ValueError: that is no name of a repository.
    """
    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def why_out_of_reach(repository: str, file: str = "", patience: float = PATIENCE) -> str | None:
    """Why this file (that of open_clip's weights) cannot be fetched, in words; None when somebody answers who may know
    better, whatever he says.

    The file itself is asked for: the hub may answer, and the server that it sends us to be out of reach. A name server
    can take half a minute to say that it does not know: this waits no longer than `patience` seconds.
    """
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    address = f"{constants.ENDPOINT}/{repository}/resolve/main/{file or _WEIGHTS}"
    said: list[str | None] = []
    asking = threading.Thread(target=lambda: said.append(_ask(address, patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return said[0] if said else f"{address} is not answered within {patience:g} s"


@contextmanager
def quiet_hub() -> Iterator[None]:
    """The hub's library does not log meanwhile; its errors are told in our words."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ask(address: str, patience: float) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=patience):
            return None
    except urllib.error.HTTPError as error:
        return None if error.code < 500 else f"{address} answers {error.code} {error.reason}"
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # somebody answers; the library has certificates of its own
            return None
        return f"{address} cannot be reached: {reason}"
