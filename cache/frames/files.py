"""The files of a frame cache, in a folder or at an address."""

import re
import time
from contextlib import suppress
from pathlib import Path

from ...errors import CacheError
from ..storage.locations import Location, Remote, location_of
from ..storage.publish import TEMPORARY, publish
from ..storage.untrusted import listed

SHARD = re.compile(r"\d{5,12}\.h5")


def place_of(where: str | Location) -> Location:
    """The folder or address of a cache; a folder's name need not be UTF-8, as HDF5 opens it and not TensorStore.

    Raises:
        CacheError: an address that is none.
    """
    return where if isinstance(where, Path) else location_of(where)


def refuse_no_bucket(place: Location) -> None:
    """Where there is no such file at an address: tell whether there is no such bucket.

    Raises:
        UnreachableError: there is none, or it may not be listed.
    """
    if isinstance(place, Remote) and place.scheme not in ("http", "https"):
        place.files()


def shard_names(place: Location) -> list[str]:
    """The shards that lie there, listed in the manifest or not."""
    names = [path.name for path in place.glob("*.h5")] if isinstance(place, Path) else listed(place)
    return sorted(name for name in names if SHARD.fullmatch(name))


def holds_others(place: Location) -> bool:
    """Whether there is something, be it a file in place of the folder."""
    if isinstance(place, Remote):
        return bool(listed(place))
    if not place.exists():
        return False
    return not place.is_dir() or any(not name.startswith(TEMPORARY) for name in listed(place))


def read_document(path: Location, most: int) -> bytes | None:
    """A document of at most so many bytes; None when there is none.

    Raises:
        OSError, ValueError: it cannot be read, or is longer.
    """
    try:
        if isinstance(path, Remote):
            return path.read(most=most)
        if path.stat().st_size > most:
            raise ValueError("it is absurdly long")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except CacheError as error:
        raise ValueError(error.what) from None


def put(path: Location, data: bytes) -> None:
    """Write a document over the one that may be there, complete or not at all.

    Raises:
        OSError: the disk cannot be written.
    """
    if isinstance(path, Remote):
        path.write(data)
    else:
        publish(path, data)


def remove(path: Location) -> None:
    """Remove a file; that there is none is no error.

    Raises:
        OSError: it cannot be removed.
    """
    if isinstance(path, Remote):
        path.remove()
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(place: Location) -> None:
    """Temporary files of killed runs; a living run's are younger than an hour. At an address there are none."""
    for path in place.glob(f"{TEMPORARY}*") if isinstance(place, Path) else ():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 3600:
                path.unlink()
