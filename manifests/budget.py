"""``budget.toml``: the limits a release must keep, per target.

::

    [gate]
    inconclusive = "fail"            # or "pass": what an unjudgeable limit means

    [limits.wasm-q4]
    decode_tokens_per_second = { min = 10 }
    load_cold_ms = { max = 8000, level = "warn" }
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import ValidationError, model_validator

from manifests.base import Schema
from manifests.errors import BadDocument, NotFound


class Limit(Schema):
    """A bound on one metric.  ``warn`` reports a breach, ``error`` fails the gate."""

    min: float | None = None
    max: float | None = None
    level: Literal["off", "warn", "error"] = "error"

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a limit needs min or max")
        return self


class GatePolicy(Schema):
    """What to do with a limit that cannot be judged here.

    A software adapter's speed says nothing about a user's machine, so a speed
    limit on one is neither kept nor broken: ``fail`` ends with exit status 5 when
    nothing else failed, ``pass`` only reports it.
    """

    inconclusive: Literal["pass", "fail"] = "pass"


class Budget(Schema):
    """The whole file: limits by target, then by metric."""

    gate: GatePolicy = GatePolicy()
    limits: dict[str, dict[str, Limit]]

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
