"""Every method and chain on a tiny checkpoint, in a process of their own.

llm-compressor takes seconds to import and sets up logging as it likes; the process also
shows what it writes to stdout.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter.checkpoint import open_checkpoint
from exporter.compress.chain import Compression
from exporter.compress.recipes import METHODS
from tests.families import FAMILY_CASES, write_family

WORK = """
import json, sys
from pathlib import Path
from exporter.compress.chain import compress
from exporter.compress.recipes import plan
from manifests.errors import TabwrightError

for source, out, methods, options in json.loads(sys.argv[1]):
    options = {name: Path(value) if name == "calibration" else value for name, value in options}
    try:
        compress(Path(source), Path(out), *plan(methods, **options))
    except TabwrightError as error:
        sys.stderr.write(f"{Path(out).name} {error.code}: {error}\\n")
"""
#: One block of GPTQ by the library and by us, under a random Hessian.
BLOCK = """
import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import gptq_block_update
from exporter.compress.modifiers import held

torch.manual_seed(5)
rows, columns = 48, 64
inputs = torch.randn(256, columns) @ torch.randn(columns, columns)
hessian = inputs.T @ inputs / 256
inverse = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)[None]
weights = torch.randn(1, rows, columns)
zeros = torch.rand(rows, columns) < 0.5
arguments = {
    "scale": weights.abs().reshape(1, rows, 2, 32).amax(-1) / 7.5,
    "zero_point": None,
    "global_scale": None,
    "g_idx": (torch.arange(columns) // 32)[None],
    "quant_args": QuantizationArgs(num_bits=4, strategy="group", group_size=32),
    "i1": 0,
}

def quantise(weights):
    found = [torch.zeros_like(weights) for _ in range(3)]
    gptq_block_update(weights.clone(), inverse, *found, **arguments)
    return found

def loss(quantised, weights):
    off = (quantised - weights)[0]
    return float((off @ hessian * off).sum())

library = quantise(weights)
with held(torch.zeros_like(zeros)):
    ours = quantise(weights)
pruned = weights * ~zeros
with held(zeros):
    kept = quantise(pruned)[0]
found = {
    "apart": max(float((one - other).abs().max()) for one, other in zip(library, ours)),
    "filled": int((kept[0][zeros] != 0).sum()),
    "kept": loss(kept, pruned),
    "cut_off": loss(quantise(pruned)[0] * ~zeros, pruned),
}
Path(sys.argv[2]).write_text(json.dumps(found))
"""
TEXT = "The kettle whistled twice before anyone looked up.\nوصل القطار قبل موعده بخمس دقائق.\n" * 9
SAMPLES, LENGTH = 4, 24
QUANTISING = [name for name, method in METHODS.items() if not method.prunes]
#: w8a16 is w4a16 with another number of bits.
AFTER_PRUNING = [name for name in QUANTISING if name != "w8a16"]
#: Relative RMS distance of the weights from the original's, at most.  GPTQ moves weights
#: further than rounding does, and fp8 has three bits after its leading one.
FURTHEST = {"w4a16": 0.3, "w4a16-rtn": 0.13, "nf4": 0.11, "fp8": 0.04, "int8": 0.01}
FURTHEST |= {"w8a16": 0.02}


#: Families by the norms that their linears read.
SMOOTHED = ("gemma2", "gemma3_text", "lfm2", "llama-mha", "phi3", "qwen3")


@dataclass(frozen=True)
class Done:
    """The folder of results by name, and how the process that made them ended."""

    source: Path
    out: Path
    text: Path
    families: Path
    process: subprocess.CompletedProcess[str]

    def values(self, name: str) -> dict[str, Any]:
        """The linears of a result by transformers, float32."""
        import torch

        from exporter.reference.model import load_checkpoint, read_config

        folder = self.out / name if name else self.source
        model = load_checkpoint(folder, read_config(folder), torch.float32, "cpu")
        return {key: v for key, v in model.state_dict().items() if key.endswith("proj.weight")}

    def summary(self, name: str) -> Compression:
        return Compression.load(self.out / name / "compression.json")


@pytest.fixture(scope="module")
def done(tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Done:
    out = tmp_path_factory.mktemp("compressed")
    source, packed, odd = (tiny_checkpoint(name) for name in ("bf16", "w4a16-g32", "bf16-odd"))
    text = tmp_path_factory.mktemp("text") / "two.txt"
    text.write_text(TEXT, "utf-8")
    (out / "exists").mkdir()
    jobs: list[tuple[str, str, list[str], list[tuple[str, Any]]]] = []

    def job(folder: Path, name: str, *methods: str, **options: Any) -> None:
        if any(METHODS[method].is_calibrated for method in methods):
            options |= {"samples": SAMPLES, "sequence_length": LENGTH, "calibration": str(text)}
        jobs.append((str(folder), str(out / name), list(methods), list(options.items())))

    for name in METHODS:
        job(source, name, name)
    job(source, "wanda-2-4", "wanda", mask_structure="2:4")
    job(source, "wanda-owl", "wanda", sparsity_profile="owl", sparsity=0.6)
    job(source, "chain", "wanda", "w4a16", sparsity=0.7)
    for name in AFTER_PRUNING:
        job(out / "wanda-2-4", f"wanda-2-4-{name}", name)
    job(odd, "odd", "w4a16-rtn")
    job(odd, "odd-64", "w4a16-rtn", group_size=64)
    job(packed, "twice", "w4a16-rtn")
    job(source, "exists", "w4a16-rtn")
    families = tmp_path_factory.mktemp("families")
    for name in SMOOTHED:
        job(write_family(FAMILY_CASES[name], families / name), f"w8a8-{name}", "w8a8")
    process = subprocess.run(
        [sys.executable, "-c", WORK + BLOCK, json.dumps(jobs), str(out / "block.json")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert process.returncode == 0, process.stderr
    return Done(source, out, text, families, process)


def share_of_zeros(values: Mapping[str, Any]) -> float:
    zeros = sum(int((value == 0).sum()) for value in values.values())
    total: int = sum(value.numel() for value in values.values())
    return zeros / total


def is_two_of_four(values: Mapping[str, Any]) -> bool:
    return all(bool(((value == 0).reshape(-1, 4).sum(1) >= 2).all()) for value in values.values())


def test_stdout_is_left_alone(done: Done) -> None:
    assert done.process.stdout == ""


def test_refusals(done: Done) -> None:
    assert "twice already-compressed: " in done.process.stderr
    assert "exists output-exists: " in done.process.stderr
    assert "odd-64 group-does-not-fit: " in done.process.stderr
    assert "96 inputs, which groups of 64 do not divide" in done.process.stderr
    left = {path.name for path in done.out.iterdir()}
    assert not left & {"twice", "odd-64"}
    assert not any(name.startswith((".", "tabwright-")) for name in left)


@pytest.mark.parametrize("name", QUANTISING)
def test_every_quantisation_opens_near_the_original(done: Done, name: str) -> None:
    checkpoint = open_checkpoint(done.out / name)
    written_by = "bitsandbytes" if name in {"nf4", "int8"} else "compressed-tensors"
    assert checkpoint.format == written_by
    assert (done.out / name / "chat_template.jinja").is_file()
    original = done.values("")
    if name == "w8a8":
        # Smoothing scales the inputs, and the norms before them back.
        return
    for linear, values in done.values(name).items():
        off = (values - original[linear]).norm() / original[linear].norm()
        assert 0 < off < FURTHEST[name], linear


@pytest.mark.parametrize("family", SMOOTHED)
def test_a_smoothed_model_says_what_it_said(done: Done, family: str) -> None:
    import torch

    from exporter.reference.model import load_checkpoint, read_config

    ids = torch.arange(3, 403, 20)[None]
    logits = []
    for folder in (done.families / family, done.out / f"w8a8-{family}"):
        model = load_checkpoint(folder, read_config(folder), torch.float32, "cpu")
        with torch.inference_mode():
            logits.append(model(ids).logits)
    before, after = logits
    # Eight bits cost some percent here; a norm that is smoothed for others costs everything.
    assert 0 < (after - before).norm() < 0.1 * before.norm()


def test_a_head_stays_as_it_is(done: Done) -> None:
    import torch
    from safetensors.torch import load_file

    # Of these, llama-mha has one of its own.
    source, result = (
        load_file(folder / "model.safetensors")
        for folder in (done.families / "llama-mha", done.out / "w8a8-llama-mha")
    )
    assert result["lm_head.weight"].dtype == source["lm_head.weight"].dtype == torch.bfloat16
    assert torch.equal(result["lm_head.weight"], source["lm_head.weight"])
    # The others are codes.
    linears = [name for name in source if name.endswith("_proj.weight")]
    assert {result[name].dtype for name in linears} == {torch.int8}


def test_rounding_to_nearest_is_off_by_half_a_step_and_what_bf16_adds(done: Done) -> None:
    from safetensors.torch import load_file

    original, tensors = done.values(""), load_file(done.out / "w4a16-rtn" / "model.safetensors")
    for linear, values in done.values("w4a16-rtn").items():
        step = tensors[linear.replace(".weight", ".weight_scale")].float()
        exact = original[linear].reshape(*step.shape, -1)
        off = (values.reshape(exact.shape) - exact).abs() / step[..., None]
        # Scale and quotient are bf16, each off by up to 2**-9 of the largest code.
        assert float(off.max()) <= 0.5 + 2**3 / 2**8


def test_the_largest_group_that_fits_is_taken_and_told(done: Done) -> None:
    # Widths 128 and 192; 96 and 192.
    assert done.summary("w4a16").group_size == 64
    assert done.summary("odd").group_size == 32
    assert done.summary("w8a16").group_size is None


def test_prunings_leave_the_zeros_that_were_asked_for(done: Done) -> None:
    for name in ("sparsegpt", "wanda"):
        assert open_checkpoint(done.out / name).format == "safetensors"
        values = done.values(name)
        assert share_of_zeros(values) == pytest.approx(0.5, abs=0.01)
        assert not is_two_of_four(values)
    # Wanda keeps what it keeps.
    original = done.values("")
    for linear, values in done.values("wanda").items():
        kept = values != 0
        assert bool((values[kept] == original[linear][kept]).all())
    assert is_two_of_four(done.values("wanda-2-4"))


def test_owl_prunes_layers_by_their_outliers(done: Done) -> None:
    values = done.values("wanda-owl")
    shares = [
        share_of_zeros({name: v for name, v in values.items() if f"layers.{layer}." in name})
        for layer in (0, 1)
    ]
    # With two layers, the one with fewer outliers is pruned lambda more, the other less.
    assert sorted(shares) == pytest.approx([0.6 - 0.08, 0.6 + 0.08], abs=0.01)


@pytest.mark.parametrize("name", AFTER_PRUNING)
def test_zeros_survive_every_quantisation(done: Done, name: str) -> None:
    before, after = done.values("wanda-2-4"), done.values(f"wanda-2-4-{name}")
    for linear, values in after.items():
        assert bool((values[before[linear] == 0] == 0).all()), linear
    assert is_two_of_four(after)


def test_gptq_is_the_library_s_but_for_the_zeros(done: Done) -> None:
    block = json.loads((done.out / "block.json").read_text())
    # Both do the same sums, in another order.
    assert block["apart"] < 1e-4
    assert block["filled"] == 0
    # Errors of weights that are held at zero are handed on to those that are not.
    assert block["kept"] < block["cut_off"]


def test_a_chain_is_one_after_the_other(done: Done) -> None:
    summary = done.summary("chain")
    assert summary.methods == ("wanda", "w4a16")
    assert share_of_zeros(done.values("chain")) >= 0.69
    assert (summary.sparsity, summary.mask_structure) == (0.7, "0:0")


def test_the_summary_is_true(done: Done) -> None:
    def size(folder: Path) -> int:
        return (folder / "model.safetensors").stat().st_size

    summary = done.summary("chain")
    assert summary.bytes_before == size(done.source)
    assert summary.bytes_after == size(done.out / "chain")
    assert summary.ratio == summary.bytes_before / summary.bytes_after
    assert summary.zeros == pytest.approx(share_of_zeros(done.values("chain")))
    calibration = summary.calibration
    assert calibration is not None
    assert calibration.sha256 == hashlib.sha256(done.text.read_bytes()).hexdigest()
    assert (calibration.source, calibration.samples) == ("two.txt", SAMPLES)
    assert calibration.tokens == SAMPLES * LENGTH
    assert done.summary("int8").calibration is None
