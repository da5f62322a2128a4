"""Free memory of a device."""

from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the free bytes of a device's memory, within the limit of this process's control group (a container's, a
    job's); a huge number (2⁶²) if unknown."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached by PyTorch for reuse
        return torch.cuda.mem_get_info(device)[0] + kept
    if not (table := Path("/proc/meminfo")).exists():
        return 1 << 62
    lines = (line.split() for line in table.read_text().splitlines())
    machine = next(int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:")
    return min([machine, *map(_left, _groups())])


def _groups() -> list[Path]:
    """The folders of this process's control group and of those around it, of version 2."""
    named = (line.removeprefix("0::/") for line in Path("/proc/self/cgroup").read_text().splitlines() if "0::" in line)
    inner = CGROUPS / next(named, "")
    return [folder for folder in (inner, *inner.parents) if (folder / "memory.max").exists()]


def _left(group: Path) -> int:
    """What a control group may still take: its limit less what it uses, but for cached files."""
    if (limit := (group / "memory.max").read_text().strip()) == "max":
        return 1 << 62
    cached = next(line.split()[1] for line in (group / "memory.stat").open() if line.startswith("inactive_file"))
    return int(limit) - int((group / "memory.current").read_text()) + int(cached)
