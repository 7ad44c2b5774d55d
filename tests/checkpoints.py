"""Tiny Llama checkpoints with random weights, written by the libraries that users use.

transformers and compressed-tensors write the files, so a test against one of them
is a test against what is found in the wild, only small: two layers, 512 tokens.
The same variant always gets the same weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from tests import sparse_layouts
from tests.packed_layouts import Layout, rewrite

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CORPUS = (
    "The quick brown fox jumps over the lazy dog, and then it does so again.",
    "A browser tab has little memory, so a model must be small to live in it.",
    "كتب المهندس رسالة قصيرة إلى زميله، ثم أرسلها في المساء.",
    "تعمل النماذج الصغيرة داخل المتصفح دون اتصال بالشبكة.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))",
)


@dataclass(frozen=True)
class Variant:
    """A checkpoint to write.

    Attributes:
        dtype: of the tensors that are not quantised.
        weights: compressed-tensors' arguments for integer weights of every linear but
            the head; ``None`` leaves the checkpoint plain.
        mixed: the same, by the regular expression of a linear's name.
        float8: the same for float8 weights.
        activations: the same for what goes into these linears.
        bitsandbytes: transformers' BitsAndBytesConfig.
        ignore: linears that stay floats, besides the head.
        layout: the packed format that the plain checkpoint is rewritten in.
        sparse: the format in which half of the linears' values are left out.
        shard_bytes: largest safetensors file; ``None`` keeps one file.
        gguf: the GGML type of the matrices, where the checkpoint is a GGUF file.
    """

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tied: bool = True
    hidden: int = 128
    intermediate: int = 192
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vocabulary: int = 512
    weights: MappingProxyType[str, Any] | None = None
    mixed: MappingProxyType[str, MappingProxyType[str, Any]] | None = None
    float8: MappingProxyType[str, Any] | None = None
    activations: MappingProxyType[str, Any] | None = None
    bitsandbytes: MappingProxyType[str, Any] | None = None
    ignore: tuple[str, ...] = ()
    layout: Layout | None = None
    sparse: sparse_layouts.Form | None = None
    shard_bytes: int | None = None
    gguf: str | None = None


def _integers(bits: int, *, symmetric: bool, group: int | None) -> MappingProxyType[str, Any]:
    grouping = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    return MappingProxyType(
        {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, **grouping}
    )


def _eight_bits(kind: str, *, strategy: str, dynamic: bool = False) -> MappingProxyType[str, Any]:
    return MappingProxyType(
        {
            "num_bits": 8,
            "type": kind,
            "symmetric": True,
            "dynamic": dynamic,
            "strategy": strategy,
        }
    )


_NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}

VARIANTS: MappingProxyType[str, Variant] = MappingProxyType(
    {
        "bf16": Variant(),
        "bf16-untied": Variant(tied=False),
        "bf16-wide": Variant(hidden=192, intermediate=256, layers=4, heads=6),
        # A width that only groups of 32 and less divide.
        "bf16-odd": Variant(hidden=96, heads=3, kv_heads=1),
        "bf16-sharded": Variant(tied=False, shard_bytes=200_000),
        "fp16": Variant(dtype="float16"),
        "w4a16-g32": Variant(weights=_integers(4, symmetric=True, group=32)),
        "w4a16-g32-untied": Variant(tied=False, weights=_integers(4, symmetric=True, group=32)),
        "w4a16-g64": Variant(weights=_integers(4, symmetric=True, group=64)),
        "w4a16-g32-asymmetric": Variant(weights=_integers(4, symmetric=False, group=32)),
        "w4a16-mixed": Variant(
            hidden=256,
            intermediate=384,
            mixed=MappingProxyType(
                {
                    "re:.*q_proj": _integers(4, symmetric=False, group=None),
                    "re:.*k_proj": _integers(4, symmetric=True, group=None),
                    "re:.*v_proj": _integers(4, symmetric=False, group=64),
                    "re:.*o_proj": _integers(4, symmetric=False, group=128),
                    "re:.*(gate|up)_proj": _integers(4, symmetric=True, group=128),
                    "re:.*down_proj": _integers(8, symmetric=False, group=32),
                }
            ),
            ignore=("re:.*layers.1.mlp.*",),
        ),
        "w4a16-act-order": Variant(
            dtype="float16",
            layout=Layout("compressed-tensors", symmetric=False, act_order=True),
        ),
        "w8a16-channel": Variant(weights=_integers(8, symmetric=True, group=None)),
        "w8a16-g32": Variant(weights=_integers(8, symmetric=True, group=32)),
        "w8a8": Variant(
            weights=_integers(8, symmetric=True, group=None),
            activations=_eight_bits("int", strategy="token", dynamic=True),
        ),
        "fp8-tensor": Variant(
            float8=_eight_bits("float", strategy="tensor"),
            activations=_eight_bits("float", strategy="tensor"),
        ),
        "fp8-channel": Variant(
            float8=_eight_bits("float", strategy="channel"),
            activations=_eight_bits("float", strategy="token", dynamic=True),
        ),
        "sparse-bitmask": Variant(sparse="sparse-bitmask"),
        "sparse-24-w8a8": Variant(
            weights=_integers(8, symmetric=True, group=None),
            activations=_eight_bits("int", strategy="token", dynamic=True),
            sparse="sparse-24-bitmask",
        ),
        "sparse-24-fp8": Variant(
            float8=_eight_bits("float", strategy="channel"), sparse="sparse-24-bitmask"
        ),
        "llm-int8": Variant(bitsandbytes=MappingProxyType({"load_in_8bit": True})),
        # Rows of 96 values in blocks of 64: a block can begin in the middle of a row.
        "nf4": Variant(hidden=96, heads=3, kv_heads=1, bitsandbytes=MappingProxyType(_NF4)),
        "nf4-double": Variant(
            bitsandbytes=MappingProxyType({**_NF4, "bnb_4bit_use_double_quant": True})
        ),
        "gptq-act-order": Variant(
            dtype="float16", layout=Layout("gptq", symmetric=False, act_order=True)
        ),
        "gptq-w8-act-order": Variant(
            dtype="float16", layout=Layout("gptq", bits=8, act_order=True)
        ),
        "gptq-v2-head": Variant(
            dtype="float16",
            tied=False,
            layout=Layout("gptq", group=64, head=True, checkpoint_format="gptq_v2"),
        ),
        "awq": Variant(dtype="float16", layout=Layout("awq", group=64, symmetric=False)),
        "gguf-f16": Variant(gguf="F16"),
        "gguf-q4-0": Variant(gguf="Q4_0"),
        "gguf-q4-0-untied": Variant(gguf="Q4_0", tied=False),
        "gguf-q4-1": Variant(gguf="Q4_1"),
        "gguf-q8-0": Variant(gguf="Q8_0"),
        # K-quants come in blocks of 256.
        "gguf-q4-k": Variant(gguf="Q4_K", hidden=256, intermediate=256),
        "gguf-q5-k": Variant(gguf="Q5_K", hidden=256, intermediate=256),
        "gguf-q6-k": Variant(gguf="Q6_K", hidden=256, intermediate=256),
    }
)


def write_checkpoint(variant: Variant, folder: Path) -> Path:
    """Write ``variant`` into ``folder`` and return it, or the file that it is."""
    from exporter.reference.quiet import quiet_libraries

    with quiet_libraries():
        _write_model(variant, folder)
        write_tokenizer(folder)
    if variant.gguf is not None:
        from tests.gguf_files import write_gguf

        return write_gguf(folder, folder / "tiny.gguf", variant.gguf)
    return folder


def _write_model(variant: Variant, folder: Path) -> None:
    import torch
    import transformers

    untyped: Any = transformers
    config = untyped.LlamaConfig(
        vocab_size=variant.vocabulary,
        hidden_size=variant.hidden,
        intermediate_size=variant.intermediate,
        num_hidden_layers=variant.layers,
        num_attention_heads=variant.heads,
        num_key_value_heads=variant.kv_heads,
        max_position_embeddings=2048,
        rms_norm_eps=1e-5,
        tie_word_embeddings=variant.tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        # About 1 / sqrt(hidden): signals keep their size from layer to layer.
        initializer_range=0.08,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = untyped.LlamaForCausalLM(config)
    # The most likely token is to stand clear of the second.
    for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        matrix.data *= 4
    model = model.to(getattr(torch, variant.dtype))
    model.generation_config = untyped.GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    save_compressed(model, variant, folder)


def save_compressed(model: Any, variant: Variant, folder: Path) -> None:
    """Save ``model``, of whatever family, compressed as ``variant`` says."""
    schemes = _schemes(variant)
    compressor = _quantize(model, schemes, variant.ignore) if schemes else None
    if variant.bitsandbytes:
        model = _load_with_bitsandbytes(model, variant.bitsandbytes, folder)
    if variant.shard_bytes is None:
        model.save_pretrained(folder)
    else:
        model.save_pretrained(folder, max_shard_size=variant.shard_bytes)
    if compressor is not None:
        compressor.update_config(folder)
    if variant.layout is not None:
        rewrite(folder, variant.layout)
    if variant.sparse is not None:
        sparse_layouts.rewrite(folder, variant.sparse)


def _load_with_bitsandbytes(model: Any, settings: Mapping[str, Any], folder: Path) -> Any:
    """What transformers makes of ``model``, which goes through ``folder``, with ``settings``."""
    import transformers

    untyped: Any = transformers
    model.save_pretrained(folder)
    scheme = untyped.BitsAndBytesConfig(**settings)
    return untyped.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=scheme, dtype=model.dtype, device_map="cpu"
    )


def _schemes(variant: Variant) -> dict[str, dict[str, Any]]:
    """compressed-tensors' config_groups of ``variant``; none when it has no part in it."""
    weights = variant.weights or variant.float8
    by_name = variant.mixed or ({"Linear": weights} if weights else {})
    schemes = {}
    for name, scheme in by_name.items():
        schemes[name] = {"targets": [name], "weights": dict(scheme)}
        if variant.activations:
            schemes[name]["input_activations"] = dict(variant.activations)
    return schemes


def _quantize(model: Any, schemes: dict[str, dict[str, Any]], ignore: tuple[str, ...]) -> Any:
    """Round ``model``'s linears to nearest and pack them in place."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationConfig,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams

    config = QuantizationConfig(config_groups=schemes, ignore=["lm_head", *ignore])
    apply_quantization_config(model, config)
    for module in model.modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        rows = module.weight.data.float()
        if scheme.weights.strategy == "tensor":
            rows = rows.reshape(1, -1)
        blocks = rows.unflatten(1, (-1, scheme.weights.group_size or rows.shape[1]))
        least, most = blocks.amin(-1), blocks.amax(-1)
        if scheme.weights.strategy == "tensor":
            least, most = least[0], most[0]
        scale, zero_point = calculate_qparams(least, most, scheme.weights)
        module.weight_scale.data.copy_(scale)
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero_point)
        if hasattr(module, "input_scale"):
            module.input_scale.data.fill_(0.02)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    return compressor


def write_tokenizer(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    untyped: Any = transformers
    wrapped = untyped.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[1],
        eos_token=SPECIAL_TOKENS[2],
        unk_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[0],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)


def edit_config(checkpoint: Path, **changes: Any) -> None:
    """Overwrite keys of ``checkpoint``'s config.json; ``None`` removes a key."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config.update(changes)
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept, indent=2), "utf-8")
