"""``budget.toml``: the limits a release must keep, per target.

::

    [gate]
    inconclusive = "fail"            # or "pass": what an unjudgeable limit means

    [defaults]                       # for every target that the report holds
    console_errors = { max = 0 }

    [limits.wasm-q4]                 # goes before the defaults, metric by metric
    decode_tokens_per_second = { min = 10, regression = 0.05 }
    load_cold_ms = { max = 8000, level = "warn" }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from manifests.base import Schema
from manifests.errors import BadDocument, NotFound

#: How samples become the figure that is judged.
Statistic = Literal["median", "p95", "lower_bound"]


class Limit(Schema):
    """Bounds on one metric.  ``warn`` reports a breach, ``error`` fails the gate.

    ``min`` and ``max`` are in the metric's unit, or with ``of = "reference"`` multiples of
    PyTorch's figure, with ``of = "original"`` of the uncompressed model's.  ``regression``
    is the share by which the figure may be worse than the baseline's: at 0.05 a time may be
    1.05 times as long, a speed 1/1.05 as high.
    """

    min: float | None = None
    max: float | None = None
    of: Literal["value", "reference", "original"] = "value"
    regression: Annotated[float, Field(gt=0)] | None = None
    statistic: Statistic = "median"
    level: Literal["off", "warn", "error"] = "error"

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        absolute = self.min is not None or self.max is not None
        if self.of != "value" and not absolute:
            raise ValueError(f'of = "{self.of}" needs min or max')
        if not absolute and self.regression is None and self.level != "off":
            raise ValueError("a limit needs min, max or regression")
        return self


class GatePolicy(Schema):
    """What to do with a limit that cannot be judged here.

    A software adapter's speed says nothing about a user's machine, and samples may be too
    few to tell a change from noise: such a limit is neither kept nor broken.  ``fail``
    ends with exit status 5 when nothing else failed, ``pass`` only reports it.
    """

    inconclusive: Literal["pass", "fail"] = "pass"


class Budget(Schema):
    """The whole file: limits for every target, then by target; each by metric."""

    gate: GatePolicy = GatePolicy()
    defaults: dict[str, Limit] = Field(default_factory=dict)
    limits: dict[str, dict[str, Limit]] = Field(default_factory=dict)

    def of(self, target: str) -> Mapping[str, Limit]:
        """Every limit of ``target``: its own, and the defaults for what it does not name."""
        own = self.limits.get(target, {})
        return {**own, **{name: limit for name, limit in self.defaults.items() if name not in own}}

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a budget from TOML.

        Raises:
            NotFound: no such file.
            BadDocument: not TOML, or not a budget; names the field.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(path, "budget") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadDocument(path, "budget", str(error)) from None
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadDocument(path, "budget", f"{where}: {first['msg']}") from None
