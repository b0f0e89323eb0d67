"""Files that operating systems and file servers leave among one's own: never ours, never damage."""

import re
from collections.abc import Iterable

_NAMES = frozenset((
    # macOS
    ".ds_store", ".localized", ".apdisk", ".appledouble", ".appledb", ".appledesktop", ".documentrevisions-v100",
    ".fseventsd", ".spotlight-v100", ".temporaryitems", ".trashes", ".volumeicon.icns", "__macosx", "icon\r",
    # Windows
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information",
    # Linux desktops and file systems
    ".directory", "lost+found",
    # network storage
    "@eadir", "@tmp", "#recycle", "#snapshot", ".snapshot", "@recycle", ".@__thumb",
))  # fmt: skip
_PATTERNS = re.compile(r"\._.*|\.nfs[0-9a-f]+|\.fuse_hidden.*|\.smbdelete.*|\.trash-\d+|\.panfs\..*", re.DOTALL)


def left_by_system(name: str) -> bool:
    """Whether a file or folder of this name is one that systems leave, whatever is in it; letters' case is ignored."""
    folded = name.lower()
    return folded in _NAMES or _PATTERNS.fullmatch(folded) is not None


def any_left_by_system(parts: Iterable[str]) -> bool:
    """Whether one of these names, the parts of a path, is."""
    return any(map(left_by_system, parts))
