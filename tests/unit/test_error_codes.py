"""Every error code is checked by a named test: something raises it, it does not only exist.

Read from the source, so that a part of the suite, run alone, tells the same.  A test
checks a code when it expects the error's class, compares ``.code`` with it, or looks for
``error[code]`` in what the command line said.  Where it compares with a variable, or has a
function called ``refused`` compare, it checks what its decorators, its module's tables and
that function's arguments name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("browser_harness", "exporter", "manifests", "targets")
#: Of roots, which nothing raises.
_ROOTS = frozenset({"bad-input", "environment", "internal"})


def test_every_code_is_checked_by_a_test() -> None:
    codes = error_codes(_modules(ROOMS))
    assert len(codes) > 80
    checked = set[str]().union(*(checks(tree) for tree in _modules(("tests",))))
    missing = {f"{code} ({name})" for name, code in codes.items() if not {name, code} & checked}
    assert missing == set(), "\n".join(sorted(missing))


def error_codes(modules: Iterable[ast.Module]) -> dict[str, str]:
    """Codes by the name of the class that has them."""
    found = {}
    for node in (node for tree in modules for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            for statement in node.body:
                match statement:
                    case ast.Assign([ast.Name("code")], ast.Constant(str(code))):
                        found[node.name] = code
    return {name: code for name, code in found.items() if code not in _ROOTS}


def checks(tree: ast.Module) -> set[str]:
    """Codes and names of error classes that the tests in ``tree`` check."""
    found: set[str] = set()
    tables = [node for node in tree.body if hasattr(node, "value")]
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        expected = list(_expected(function))
        if any(isinstance(part, ast.Name) and part.id.islower() for part in _parts(expected)):
            expected += [*tables, *function.decorator_list]
        found |= set(_words(expected))
    return found


def _expected(function: ast.AST) -> Iterator[ast.AST]:
    """What an error, its code or the command line's words are held against."""
    for node in ast.walk(function):
        match node:
            case ast.Call(ast.Attribute(attr="raises"), [expected, *_]):
                yield expected
            case ast.Call(ast.Name(name) as called, arguments) if name.endswith("refused"):
                yield from (called, *arguments)
            case ast.Compare(left, _, others):
                sides = [left, *others]
                codes = [side for side in sides if _is_code(side)]
                if codes:
                    yield from (side for side in sides if side not in codes)
            case ast.Constant(str(text)) if "error[" in text:
                yield ast.Constant(text.partition("error[")[2].partition("]")[0])


def _is_code(side: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == "code" for part in ast.walk(side))


def _words(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for part in _parts(nodes):
        match part:
            case ast.Name(word) | ast.Attribute(attr=word) | ast.Constant(str(word)):
                yield word


def _parts(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        yield from ast.walk(node)


def _modules(folders: Iterable[str]) -> Iterator[ast.Module]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield ast.parse(path.read_text("utf-8"))


def test_codes_are_found() -> None:
    classes = 'class Gone(BadInput):\n    code = "gone"\nclass Late(Gone):\n    code = "late"'
    assert error_codes([ast.parse(classes)]) == {"Gone": "gone", "Late": "late"}


def test_checks_are_told_from_mentions() -> None:
    mentions = 'T = {"x": "gone"}\ndef test_a():\n    raise Gone\n    print("late")'
    assert checks(ast.parse(mentions)) == set()
    by_class = "def test_a():\n    with pytest.raises((errors.Gone, Late)): ..."
    assert {"Gone", "Late"} <= checks(ast.parse(by_class))
    by_code = 'def test_a():\n    assert (caught.value.code, 3) == ("gone", 3)'
    assert "gone" in checks(ast.parse(by_code))
    by_table = 'T = {"x": "gone"}\ndef test_a():\n    assert e.value.code == code'
    assert "gone" in checks(ast.parse(by_table))
    by_parameter = '@parametrize("e", [Gone])\ndef test_a(e):\n    with pytest.raises(e): ...'
    assert "Gone" in checks(ast.parse(by_parameter))
    by_line = 'def test_a():\n    assert "error[late]: x" in told'
    assert "late" in checks(ast.parse(by_line))
