"""What a machine can do, as ``tabwright doctor`` tells it."""

from __future__ import annotations

from manifests.base import Schema
from manifests.page import Adapter
from manifests.report import Machine


class InstalledBrowser(Schema):
    """The browser that would be driven; ``origin`` says why this one."""

    name: str
    version: str
    executable: str
    origin: str


class Cuda(Schema):
    """What torch finds: no ``devices`` means that references are made on the CPU."""

    torch: str
    devices: tuple[str, ...]


class Advice(Schema):
    """Something that is missing, what it would be good for, and how to get it."""

    missing: str
    purpose: str
    commands: tuple[str, ...]


class Doctor(Schema):
    """The whole examination.  What is absent was looked for and not found."""

    machine: Machine
    browser: InstalledBrowser | None = None
    hardware_adapter: Adapter | None = None
    software_adapter: Adapter | None = None
    jspi: bool | None = None
    cross_origin_isolated: bool | None = None
    cuda: Cuda | None = None
    node: str | None = None
    npm: str | None = None
    python: str
    advice: tuple[Advice, ...] = ()
