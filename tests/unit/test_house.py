"""Rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FOLDERS = {"exporter", "targets", "browser_harness", "manifests", "tests", "docs"}
FILES = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "tabwright.py",
    "whole_way.py",
}
ROOMS = ("exporter", "targets", "browser_harness", "manifests")

#: A package file that names where its packages came from works in one place only.
_REGISTRIES = re.compile(
    r"registry\.npmjs\.org|registry\.yarnpkg\.com|pythonhosted\.org|pypi\.org|--index-url|find-links"
)
_HOME_PATHS = re.compile(r"(?<![\w.])/(?:home|Users|root|work)/\w")


def ours() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def text_files() -> Iterator[tuple[Path, str]]:
    for path in ours():
        if path == Path(__file__):
            continue
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def test_top_level_holds_only_what_belongs_there() -> None:
    top = {path.relative_to(ROOT).parts for path in ours()}
    folders = {parts[0] for parts in top if len(parts) > 1 and not parts[0].startswith(".")}
    files = {parts[0] for parts in top if len(parts) == 1 and not parts[0].startswith(".")}
    assert folders <= FOLDERS
    assert files <= FILES


def test_no_file_names_a_registry_or_somebodys_home() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in text_files()
        for pattern in (_REGISTRIES, _HOME_PATHS)
        for match in pattern.finditer(text)
    ]
    assert found == []


def test_every_folder_of_python_is_a_package_of_the_wheel() -> None:
    modules = [p for p in ours() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ROOMS]
    assert modules
    missing = {p.parent for p in modules if not (p.parent / "__init__.py").is_file()}
    assert missing == set()


def test_constraints_pin_every_dependency_at_or_above_its_floor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    floors = [*project["dependencies"], *(each for extra in extras for each in extra)]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    by_name = {_normal(name): version for name, version in pins.items()}
    for floor in floors:
        name, version = floor.split(">=")
        assert _numbers(by_name[_normal(name)]) >= _numbers(version), floor


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
