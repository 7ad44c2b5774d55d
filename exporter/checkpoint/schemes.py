"""The compression schemes that are read, as users name them."""

from __future__ import annotations

SUPPORTED = (
    "compressed-tensors pack-quantized int4 and int8 (W4A16, W8A16)",
    "plain bfloat16, float16 and float32 safetensors",
)
