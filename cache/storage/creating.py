"""Files and folders made at an address, where nothing is renamed: a file is whole by itself, and made only where there
is none; a folder is there once the file is that is made last."""

from collections.abc import Callable, Mapping

from ...errors import CacheError
from .locations import Remote, at_once

_ATTEMPTS = 5
_READ_ANYWAY = 64 << 20  # bytes, however few there should be


def put(file: Remote, data: bytes, stands: Callable[[bytes], bool] = lambda other: False) -> bytes:
    """Make a file unless there is one; what lies there then, read back.

    Of several writers, the first makes it, and the others find his. Other bytes are replaced, if they still are those
    that were looked at, unless they may stand; and are put back where they may stand by then.

    Args:
        file: where.
        data: what is to lie there.
        stands: whether other bytes that lie there may stay; asked again once they are replaced, as what it looks at
            may have come meanwhile.

    Raises:
        CacheError: what was written does not come back.
        UnreachableError: the server fails.
    """
    for _ in range(_ATTEMPTS):
        if file.create(data):
            if lying(file, len(data)) == data:
                return data
            continue
        stamp = file.stamp()
        there = lying(file, len(data))
        if there == data or (there is not None and stands(there)):
            return there
        if stamp is None or there is None or not file.replace(data, stamp):
            continue
        if there and stands(there):  # what was too long to be read cannot be put back
            _take_back(file, data, there)
            return there
    raise not_back(file)


def _take_back(file: Remote, data: bytes, before: bytes) -> None:
    """Put what lay there before back over `data`, unless somebody else has written since."""
    stamp = file.stamp()
    if stamp is not None and lying(file, len(data)) == data:
        file.replace(before, stamp)


def not_back(file: Remote) -> CacheError:
    """The error for what was written and is not there.

    Raises:
        UnreachableError: it cannot be, without a bucket.
    """
    file.parent.files()
    return CacheError("what was written does not come back", where=str(file), hint="check the server")


def lying(file: Remote, size: int) -> bytes | None:
    """A file's bytes, of which there should be `size`; none of a much longer one's. None when there is no file."""
    try:
        return file.read(most=max(size, _READ_ANYWAY))
    except CacheError:
        return b""


def create_folder(path: Remote, files: Mapping[str, bytes]) -> bool:
    """Make a folder of these files, the last one last: with it, the folder is there. False when there was one already.

    What a killed writer left, whose last file never came, is written over. Two who make the same at once help each
    other; of two who make something else under one name, the first has it. The other stops as soon as he sees that.
    What he wrote over by then, the first puts right, and he himself what he wrote over since: only one who is killed
    in between, within a request, leaves a folder that is damaged.
    """
    *others, last = files

    def taken(other: bytes) -> bool:
        return lying(path / last, len(files[last])) not in (None, files[last])

    def put_all(stands: Callable[[bytes], bool]) -> None:
        at_once(path, lambda name: put(path / name, files[name], stands), others)

    if (path / last).exists():
        return False
    put_all(taken)
    made = (path / last).create(files[last])
    if lying(path / last, len(files[last])) == files[last]:
        put_all(lambda other: False)
    return made
