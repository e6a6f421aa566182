"""How many threads can really run at once in this process: no knowledge of what they will do."""

from __future__ import annotations

import os
from pathlib import Path


def available_threads(asked: int | None = None) -> int:
    """min(asked, the processors this process may use, the quota of its container), at least 1."""
    if asked is not None and asked < 1:
        raise ValueError(f"at least one thread is needed, not {asked}")
    limits = (len(os.sched_getaffinity(0)), cgroup_quota(), asked)
    return max(1, min(limit for limit in limits if limit is not None))


def cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Whole processors that control groups (version 1 or 2) grant to this process; None without a limit.

    Rounded down: a thread that the kernel stops in the middle of a barrier stops all others too.
    """
    if not membership.exists():
        return None
    granted = []
    for line in membership.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):      # the strictest of the group and the groups around it
            granted += _granted_by(folder)
            if folder == base:
                break
    return max(1, min(granted)) if granted else None


def _granted_by(folder: Path) -> list[int]:
    """The limit that one control group sets, if it sets one."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
    elif (folder / "cpu.cfs_quota_us").exists():
        quota = (folder / "cpu.cfs_quota_us").read_text().strip()
        period = (folder / "cpu.cfs_period_us").read_text().strip()
    else:
        return []
    return [] if quota in ("max", "-1") else [int(quota) // int(period)]
