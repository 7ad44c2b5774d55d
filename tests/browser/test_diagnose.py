"""A damaged weight is named by what a real browser computes, on both kinds of target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tabwright
from browser_harness.plan import PAGE
from exporter.pipeline import export
from targets import find_targets
from tests.damage import scale_up

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]
MODULE = "model.layers.1.mlp.gate_proj"


@pytest.fixture(scope="module")
def exported(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A checkpoint, its bundle, and the bundle with one weight damaged."""
    folder = tmp_path_factory.mktemp("diagnose")
    checkpoint = tiny_checkpoint("w4a16-g32")
    whole = folder / "bundle"
    export(
        checkpoint, find_targets(["webgpu-q4", "wasm-q4"]), whole, runtime=PAGE.parent / "bundle"
    )
    return checkpoint, whole, scale_up(whole, folder / "damaged", f"{MODULE}.weight", 1.25)


def _diagnose(bundle: Path, checkpoint: Path, target: str) -> int:
    arguments = ["--checkpoint", str(checkpoint), "--target", target, "--format", "json"]
    return tabwright.call(["diagnose", str(bundle), *arguments, "--adapter", "software"])


@pytest.mark.parametrize(("target", "loop"), [("wasm-q4", "plain"), ("webgpu-q4", "resident")])
def test_the_damaged_weight_is_named(
    exported: tuple[Path, Path, Path],
    target: str,
    loop: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint, _, damaged = exported
    assert _diagnose(damaged, checkpoint, target) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["loop"]) == (target, loop)
    assert (found["first"]["module"], found["first"]["side"]) == (MODULE, "output")
    assert found["changed"] == [f"{MODULE}.weight"]
    # The layer before the damaged one is right, on this adapter too.
    assert max(each["relative"] for each in found["layers"][:2]) < 1e-4


def test_a_healthy_bundle_names_nothing(
    exported: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, whole, _ = exported
    assert _diagnose(whole, checkpoint, "wasm-q4") == 0
    found = json.loads(capsys.readouterr().out)
    assert "first" not in found
    assert max(each["relative"] for each in found["layers"]) < 1e-4
