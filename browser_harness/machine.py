"""The machine that the browser runs on, as far as it explains the figures."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from manifests.report import Machine

_CPUINFO = Path("/proc/cpuinfo")


def _cpu_name() -> str:
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def describe_machine() -> Machine:
    """System, CPU, logical cores and memory of this machine."""
    return Machine(
        system=platform.platform(terse=True),
        cpu=_cpu_name(),
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )
