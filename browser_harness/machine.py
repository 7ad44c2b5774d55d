"""The machine that the browser runs on, as far as it explains the figures."""

from __future__ import annotations

import platform

import psutil

from manifests.machine import cpu_name
from manifests.report import Machine


def describe_machine() -> Machine:
    """System, CPU, logical cores and memory of this machine."""
    return Machine(
        system=platform.platform(terse=True),
        cpu=cpu_name(),
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )
