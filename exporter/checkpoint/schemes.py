"""The compression schemes that are read, as users name them."""

from __future__ import annotations

SUPPORTED = (
    "compressed-tensors pack-quantized int4 and int8 (W4A16, W8A16)",
    "compressed-tensors int-quantized int8 (W8A8)",
    "compressed-tensors float-quantized float8_e4m3fn per tensor, channel or group (FP8)",
    "compressed-tensors sparse-bitmask and sparse-24-bitmask, of floats, int8 and float8",
    "bitsandbytes LLM.int8() and NF4",
    "GPTQ of 4 and 8 bits in the layouts gptq and gptq_v2, with and without act-order",
    "AWQ of 4 bits in the version gemm",
    "GGUF of every type that the gguf package can dequantise",
    "plain bfloat16, float16 and float32 safetensors",
)
