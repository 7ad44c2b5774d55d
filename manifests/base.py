"""The base of every schema: closed, immutable, written the same way each time."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, WithJsonSchema

from manifests.errors import BadDocument, NotFound

#: A measured number that may have come out as no number at all.  JSON knows neither
#: infinity nor NaN, so a document says those as strings: every parser reads it.
Real = Annotated[
    float,
    WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
]


class Schema(BaseModel):
    """A document or a part of one.  Unknown keys are refused: a typo is not data."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal documents are equal bytes."""
        document: Any = json.loads(self.model_dump_json(exclude_none=True))
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text + "\n"

    @classmethod
    def parse(cls, text: str | bytes, path: Path) -> Self:
        """Read a document of this schema.

        Raises:
            BadDocument: when ``text`` is not JSON or does not fit; names ``path``
                and the first field that does not.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the top level"
            raise BadDocument(path, cls.__name__, f"{where}: {first['msg']}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file at ``path``.

        Raises:
            NotFound: no such file.
            BadDocument: see :meth:`parse`.
        """
        try:
            return cls.parse(path.read_bytes(), path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(path, cls.__name__) from None

    def save(self, path: Path) -> None:
        """Write to ``path`` in one step: a reader finds the old document or the whole new one.

        Raises:
            OSError: the folder cannot be written to; nothing is left behind.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            staged.write_text(self.to_json(), "utf-8")
            staged.replace(path)
        finally:
            staged.unlink(missing_ok=True)
