"""Whether a folder lies on a disk of another machine, where databases need other locks."""

from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs",
    "orangefs", "pvfs2", "panfs", "ocfs2", "gfs2", "virtiofs", "vboxsf", "davfs", "fuse",
))  # fmt: skip


def network_disk(folder: Path) -> str | None:
    """The name of the file system when it is, or may be, shared with other machines; None on a disk of this one.

    File systems in user space (`fuse.*`: sshfs, s3fs, rclone) count as shared. Where the system does not tell, None.
    """
    kind = _file_system(folder)
    return kind if kind in _NETWORK or kind.startswith("fuse.") else None


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, there or not; empty when the system does not tell."""
    real, kind, longest = folder.resolve(), "", -1
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < 5:
            continue
        point = Path(_plain(fields[4]))
        if real.is_relative_to(point) and len(point.parts) >= longest:  # of two at one place, the later is seen
            kind, longest = after.split()[0], len(point.parts)
    return kind


def _plain(point: str) -> str:
    """A mount point as it is: the kernel spells blanks and the like in octal."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        point = point.replace(code, chr(int(code[1:], 8)))
    return point
