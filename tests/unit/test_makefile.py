"""What make says of a machine that cannot build the page."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


MAKE = shutil.which("make")


def check_node(path: str) -> subprocess.CompletedProcess[str]:
    assert MAKE is not None
    return subprocess.run(
        [MAKE, "--silent", "check-node"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(MAKE is None, reason="no make on this machine")
@pytest.mark.skipif(shutil.which("node") is None, reason="no Node.js on this machine")
def test_an_old_node_is_refused_by_its_version(tmp_path: Path) -> None:
    assert check_node(os.environ["PATH"]).returncode == 0
    node = shutil.which("node")
    # The real one, but for the version that it tells of itself.
    old = tmp_path / "old.cjs"
    old.write_text('Object.defineProperty(process.versions, "node", { value: "20.18.1" });\n')
    fake = tmp_path / "node"
    fake.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo v20.18.1 && exit\nexec {node} -r {old} "$@"\n'
    )
    fake.chmod(0o755)
    refused = check_node(f"{tmp_path}:{os.environ['PATH']}")
    assert refused.returncode != 0
    assert "Node.js 20.19 or newer" in refused.stderr
    assert "v20.18.1" in refused.stderr
