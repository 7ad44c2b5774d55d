"""Which sweeps there are, as data, and how a command line asks for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import click

SweepName = Literal["context", "prompts", "loads", "leaks"]


@dataclass(frozen=True)
class Network:
    """What a network is emulated as: one round trip in milliseconds, bits per second."""

    latency_ms: float
    down_bits: float
    up_bits: float


#: Chrome DevTools' own presets by their names, with the factors by which it corrects what
#: it emulates (front_end/core/sdk/NetworkManager.ts), and WebPageTest's cable connection.
NETWORKS: MappingProxyType[str, Network] = MappingProxyType(
    {
        "cable": Network(28, 5e6, 1e6),
        "fast-4g": Network(60 * 2.75, 9e6 * 0.9, 1.5e6 * 0.9),
        "slow-4g": Network(150 * 3.75, 1.6e6 * 0.9, 750e3 * 0.9),
        "3g": Network(400 * 5, 500e3 * 0.8, 500e3 * 0.8),
    }
)

DEFAULT_NETWORK = "fast-4g"


@dataclass(frozen=True)
class Asked:
    """A sweep, and how far it goes: what its ``NAME=VALUE`` says, its own default else."""

    name: SweepName
    value: str | None = None

    @property
    def number(self) -> int | None:
        """The value of a sweep that counts something."""
        return None if self.value is None else int(self.value)


def _is_count(value: str) -> bool:
    return value.isdecimal() and 0 < int(value) <= 1 << 20


@dataclass(frozen=True)
class _Kind:
    """What a sweep's value may be, and how that is told."""

    accepts: Callable[[str], bool]
    what: str


_KINDS: MappingProxyType[SweepName, _Kind] = MappingProxyType(
    {
        "context": _Kind(_is_count, "the number of positions to go to"),
        "prompts": _Kind(_is_count, "the longest prompt in tokens"),
        "loads": _Kind(NETWORKS.__contains__, f"a network: {', '.join(NETWORKS)}"),
        "leaks": _Kind(_is_count, "the number of loads and releases"),
    }
)


class SweepParameter(click.ParamType[Asked]):
    """``NAME`` or ``NAME=VALUE``."""

    name = "sweep"

    def convert(
        self, value: str | Asked, param: click.Parameter | None, ctx: click.Context | None
    ) -> Asked:
        """Read one; anything unknown is told as Click tells a bad value."""
        if isinstance(value, Asked):
            return value
        name, equals, text = value.partition("=")
        found = next((known for known in _KINDS if known == name), None)
        if found is None:
            self.fail(f"'{name}' is no sweep: choose among {', '.join(_KINDS)}", param, ctx)
        if equals and not _KINDS[found].accepts(text):
            self.fail(f"'{text}' is not {_KINDS[found].what}", param, ctx)
        return Asked(found, text if equals else None)
