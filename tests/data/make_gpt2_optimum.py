"""Writes gpt2-optimum/: a tiny GPT-2, and the ONNX graph that optimum makes of it.

Run by hand in an environment with exporter/optimum/pins.txt, from the repository's root:

    python tests/data/make_gpt2_optimum.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from optimum.exporters.onnx import main_export  # type: ignore[import-not-found]
from transformers import GPT2Config, GPT2LMHeadModel

OUT = Path(__file__).parent / "gpt2-optimum"


def main() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=512,
        n_positions=64,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    untyped: Any = GPT2LMHeadModel
    model = untyped(config).eval()
    with torch.no_grad():
        # Larger than at the start of training, so that logits differ by more than noise;
        # no two alike, so that every weight can be told by its values.
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        for name in ("config.json", "model.safetensors"):
            (OUT / name).write_bytes(Path(scratch, name).read_bytes())
        out = Path(scratch, "onnx")
        main_export(scratch, out, task="text-generation-with-past")
        (OUT / "model.onnx").write_bytes((out / "model.onnx").read_bytes())


if __name__ == "__main__":
    main()
