"""How many cores there are for this process."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores this process may use: by its affinity, and by its container's quota of processor time, rounded up."""
    allowed, quota = len(os.sched_getaffinity(0)), _quota()
    return allowed if quota is None else max(1, min(allowed, -int(-quota // 1)))


def _quota() -> float | None:
    """Cores' worth of processor time that the container may use; None where nothing limits it."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((CGROUP / f"cpu/cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return float(quota) / float(period) if float(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None
