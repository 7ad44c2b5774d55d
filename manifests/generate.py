"""Write the JSON Schemas and the TypeScript types that follow from the models.

::

    python -m manifests.generate            # write them
    python -m manifests.generate --check    # exit 1, naming the files that drifted

The TypeScript emitter covers what the models here use and refuses anything else,
so that a new construct is noticed instead of turning into ``any``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from manifests import page
from manifests.base import Schema
from manifests.budget import Budget
from manifests.bundle import Manifest
from manifests.diagnosis import Diagnosis
from manifests.history import Entry
from manifests.reference import Reference
from manifests.report import Report
from manifests.self_check import SelfCheck
from manifests.work import Bandwidth, GpuBuffers, GpuPasses

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = Path("manifests/schemas")
PAGE = Path("browser_harness/page")

PAGE_MESSAGES: tuple[type[Schema], ...] = (
    page.LoadRequest,
    page.GpuCalls,
    page.LoadResult,
    page.GenerateResult,
    page.LogitsBlock,
    page.TokenChance,
    page.PageMemory,
    Bandwidth,
    GpuBuffers,
    GpuPasses,
)
JSON_SCHEMAS: dict[str, tuple[type[Schema], ...]] = {
    "bundle": (Manifest,),
    "self_check": (SelfCheck,),
    "reference": (Reference,),
    "report": (Report,),
    "budget": (Budget,),
    "history": (Entry,),
    "diagnosis": (Diagnosis,),
    "page": PAGE_MESSAGES,
}
#: The runtime returns its load timings and adapter as the harness will report
#: them, so those two messages live with the types that ship.
TYPESCRIPT: dict[Path, tuple[type[Schema], ...]] = {
    PAGE / "runtime/schema.ts": (
        Manifest,
        SelfCheck,
        page.LoadTimings,
        page.Adapter,
        page.Fallback,
        page.SelfCheckResult,
    ),
    PAGE / "measure/schema.ts": PAGE_MESSAGES,
}

_BANNER = "// Written by `python -m manifests.generate` from manifests/*.py. Do not edit.\n"
_SCALARS = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


def _definitions(models: Sequence[type[Schema]]) -> dict[str, Any]:
    """JSON Schemas of ``models`` and of everything that they refer to, by name."""
    _, schema = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = schema["$defs"]
    return definitions


def json_schema(name: str) -> str:
    """The JSON Schema document ``name`` of :data:`JSON_SCHEMAS`."""
    models = JSON_SCHEMAS[name]
    roots = [{"$ref": f"#/$defs/{model.__name__}"} for model in models]
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"tabwright {name}",
        "$defs": _definitions(models),
        **(roots[0] if len(roots) == 1 else {"anyOf": roots}),
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _nullable(schema: dict[str, Any]) -> bool:
    return {"type": "null"} in schema.get("anyOf", ())


def _type(schema: dict[str, Any]) -> str:
    """The TypeScript type of a JSON Schema.

    Raises:
        ValueError: a construct that no model has used so far.
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        # A document leaves out what is None, so null is never written.
        return " | ".join(_type(part) for part in schema["anyOf"] if part != {"type": "null"})
    kind = schema.get("type")
    if kind == "array" and "items" in schema:
        inner = _type(schema["items"])
        return f"readonly ({inner})[]" if " " in inner else f"readonly {inner}[]"
    if kind == "object" and "additionalProperties" in schema:
        return f"Readonly<Record<string, {_type(schema['additionalProperties'])}>>"
    if kind in _SCALARS:
        return _SCALARS[kind]
    raise ValueError(f"no TypeScript for {schema}")


def _comment(text: str | None, indent: str) -> Iterator[str]:
    if text:
        lines = text.replace("*/", "*\\/").strip().splitlines()
        if len(lines) == 1:
            yield f"{indent}/** {lines[0].strip()} */"
        else:
            yield f"{indent}/**"
            yield from (f"{indent} * {line.strip()}".rstrip() for line in lines)
            yield f"{indent} */"


def _interface(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield from _comment(schema.get("description"), "")
    yield f"export interface {name} {{"
    for field, value in schema["properties"].items():
        yield from _comment(value.get("description"), "  ")
        yield f"  readonly {field}{'?' if _nullable(value) else ''}: {_type(value)};"
    yield "}"


def typescript(models: Sequence[type[Schema]]) -> str:
    """One ``interface`` per schema.  A field is optional when it may be None."""
    blocks = [
        "\n".join(_interface(name, schema)) for name, schema in sorted(_definitions(models).items())
    ]
    return _BANNER + "\n" + "\n\n".join(blocks) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file's text, by its path from the repository's root."""
    files = {SCHEMAS / f"{name}.schema.json": json_schema(name) for name in JSON_SCHEMAS}
    files.update({path: typescript(models) for path, models in TYPESCRIPT.items()})
    return files


def drifted(root: Path = ROOT) -> list[Path]:
    """Generated files that are missing or differ from what the models say."""
    return [
        path
        for path, text in generated().items()
        if not (root / path).is_file() or (root / path).read_text("utf-8") != text
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or check them; the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m manifests.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    if not parser.parse_args(arguments).check:
        for path, text in generated().items():
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(text, "utf-8")
        return 0
    stale = drifted()
    for path in stale:
        print(f"{path}: differs from the models: run python -m manifests.generate", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
