"""What Chromium is started with: data, by what is wanted of it."""

from __future__ import annotations

import os
import sys
from types import MappingProxyType
from typing import Literal

#: What a user may ask for.  ``auto`` takes hardware where a page finds it.
AdapterChoice = Literal["auto", "hardware", "software", "none"]
#: What a browser is started for.
AdapterKind = Literal["hardware", "software", "none"]

BASE_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Chromium itself asks for updates and accounts: all of it ends at a port that nobody has.
    "--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--no-proxy-server",
    # Exact heap sizes instead of values rounded to buckets.
    "--enable-precise-memory-info",
    # Without it Linux hides a sandboxed renderer's memory from its own user.
    "--allow-sandbox-debugging",
)

_WEBGPU_FLAGS = ("--enable-unsafe-webgpu", "--enable-webgpu-developer-features")

#: Headless Chromium takes the GPU through Vulkan on Linux; the last flag shows
#: shader-f16 on NVIDIA, which Dawn hides there.
_HARDWARE_FLAGS = MappingProxyType(
    {
        "linux": (
            "--use-angle=vulkan",
            "--enable-features=Vulkan",
            "--disable-vulkan-surface",
            "--enable-dawn-features=vulkan_enable_f16_on_nvidia",
        ),
    }
)

ADAPTER_FLAGS: MappingProxyType[AdapterKind, tuple[str, ...]] = MappingProxyType(
    {
        "none": (),
        "hardware": (*_WEBGPU_FLAGS, *_HARDWARE_FLAGS.get(sys.platform, ())),
        "software": (*_WEBGPU_FLAGS, "--use-webgpu-adapter=swiftshader"),
    }
)


def is_root() -> bool:
    """Chromium's sandbox refuses to start for root, so it is left out there only."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def flags_for(adapter: AdapterKind) -> tuple[str, ...]:
    """The flags that we add to Playwright's own; ``--no-sandbox`` is told with them."""
    sandbox = ("--no-sandbox",) if is_root() else ()
    return (*BASE_FLAGS, *ADAPTER_FLAGS[adapter], *sandbox)
