"""Recipes carried out by llm-compressor, in a process of their own.

It takes seconds to import and sets up logging as it likes; the process also shows
what it writes to stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.checkpoint import open_checkpoint
from exporter.compress.errors import UnknownRecipe
from exporter.compress.recipes import RECIPES, find_recipe

WORK = """
import json, sys
from pathlib import Path
from exporter.compress.oneshot import compress
from exporter.compress.recipes import RECIPES
from manifests.errors import TabwrightError

for source, out, recipe in json.loads(sys.argv[1]):
    try:
        compress(Path(source), Path(out), RECIPES[recipe])
    except TabwrightError as error:
        sys.stderr.write(f"{Path(out).name} {error.code}: {error}\\n")
"""


@pytest.fixture(scope="module")
def compressed(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    """The source, the folder of results by recipe, and how the process ended."""
    out = tmp_path_factory.mktemp("compressed")
    source, packed = tiny_checkpoint("bf16"), tiny_checkpoint("w4a16-g32")
    (out / "exists").mkdir()
    jobs = [(str(source), str(out / name), name) for name in RECIPES]
    jobs.append((str(packed), str(out / "twice"), "w4a16-rtn-g32"))
    jobs.append((str(source), str(out / "exists"), "w4a16-rtn-g32"))
    wide = tiny_checkpoint("bf16-odd")
    jobs.append((str(wide), str(out / "odd"), "w4a16-rtn-g64"))
    done = subprocess.run(
        [sys.executable, "-c", WORK, json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return source, out, done


def test_stdout_is_left_alone(
    compressed: tuple[Path, Path, subprocess.CompletedProcess[str]],
) -> None:
    _, _, done = compressed
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_refusals(compressed: tuple[Path, Path, subprocess.CompletedProcess[str]]) -> None:
    _, out, done = compressed
    assert "twice already-compressed: " in done.stderr
    assert "exists output-exists: " in done.stderr
    assert "odd group-does-not-fit: " in done.stderr
    assert "96 inputs, which groups of 64 do not divide" in done.stderr
    assert {path.name for path in out.iterdir()} == {*RECIPES, "exists"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_rounding_to_nearest_is_off_by_half_a_step_and_what_bf16_adds(
    compressed: tuple[Path, Path, subprocess.CompletedProcess[str]], name: str
) -> None:
    import torch
    from safetensors.torch import load_file

    from exporter.reference.model import load_checkpoint, read_config

    source, out, _ = compressed
    recipe = RECIPES[name]
    checkpoint = open_checkpoint(out / name)
    assert checkpoint.format == "compressed-tensors"
    assert (out / name / "chat_template.jinja").is_file()
    original = load_file(source / "model.safetensors")
    scales = load_file(out / name / "model.safetensors")
    model = load_checkpoint(out / name, read_config(out / name), torch.float32, "cpu")
    checked = 0
    for linear, values in model.state_dict().items():
        if not linear.endswith("proj.weight"):
            continue
        width = recipe.group_size or values.shape[1]
        exact = original[linear].float().reshape(len(values), -1, width)
        step = scales[linear.replace(".weight", ".weight_scale")].float()[..., None]
        off = (values.reshape(exact.shape) - exact).abs()
        # Scale and quotient are bf16, each off by up to 2**-9 of the largest code; a zero
        # point that was rounded itself shifts a block by up to half a step more.
        bits = int(name.removeprefix("w")[0])
        limit = 0.5 + 2 ** (bits - 1) / 2**8 + (0.5 if "asymmetric" in name else 0)
        assert float((off / step).max()) <= limit * 1.001
        checked += 1
    assert checked == 14


def test_an_unknown_recipe_is_named() -> None:
    assert find_recipe("w4a16-rtn-g64").group_size == 64
    with pytest.raises(UnknownRecipe, match="unknown recipe 'w2'") as caught:
        find_recipe("w2")
    assert "w8a16-rtn-channel" in caught.value.next_step


def test_recipes_are_plain_data() -> None:
    for recipe in RECIPES.values():
        document: Any = recipe.document()
        assert json.loads(json.dumps(document)) == document
