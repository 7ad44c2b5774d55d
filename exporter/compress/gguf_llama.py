"""A Llama in a GGUF file as a Hugging Face checkpoint in bfloat16.

transformers reads GGUF too, but what it makes of this one ends a reply with the
wrong token, decodes spaces wrongly and refuses to be saved.  The file itself holds
everything that is needed; see the GGUF specification for the keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from exporter.compress.errors import UnreadableGguf
from exporter.compress.roundtrip import check_lossless
from exporter.reference.quiet import quiet_libraries
from manifests.progress import Progress, silent

_CONTROL_TOKEN = 3
_GLOBAL_NAMES = MappingProxyType(
    {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
)
_LAYER_NAMES = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
#: transformers' factories are untyped.
_TRANSFORMERS: Any = transformers


def convert_gguf(path: Path, out: Path, progress: Progress = silent) -> None:
    """Write the model and the tokenizer in ``path`` to the folder ``out``.

    Weights are dequantised and rounded to bfloat16.

    Raises:
        UnreadableGguf: another architecture or kind of tokenizer.
        TokenizerNotLossless: the rebuilt tokenizer does not give texts back.
    """
    reader = GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    if fields.get("general.architecture") != "llama":
        raise UnreadableGguf(path, f"architecture is {fields.get('general.architecture')}")
    tokenizer = _tokenizer(path, fields)
    check_lossless(path, tokenizer)
    with quiet_libraries():
        _save_model(path, reader, fields, out, progress)
        _save_tokenizer(tokenizer, fields, out)


def _save_model(
    path: Path, reader: GGUFReader, fields: dict[str, Any], out: Path, progress: Progress
) -> None:
    names = {tensor.name for tensor in reader.tensors}
    ids = {key: fields[f"tokenizer.ggml.{key}"] for key in ("bos_token_id", "eos_token_id")}
    ids["pad_token_id"] = fields["tokenizer.ggml.padding_token_id"]
    config = _TRANSFORMERS.LlamaConfig(
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        # GGUF keeps these in float32; six digits give back what the config said.
        rms_norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        rope_theta=float(f"{fields['llama.rope.freq_base']:.6g}"),
        tie_word_embeddings="output.weight" not in names,
        **ids,
    )
    state = dict(_weights(path, reader, config, progress))
    model = _TRANSFORMERS.LlamaForCausalLM(config).to(torch.bfloat16)
    missing, unexpected = model.load_state_dict(state, strict=False)
    absent = set(missing) - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    if absent or unexpected:
        raise UnreadableGguf(path, f"tensors do not match: {sorted({*absent, *unexpected})}")
    model.tie_weights()
    model.generation_config = _TRANSFORMERS.GenerationConfig(**ids)
    model.save_pretrained(out)


def _weights(
    path: Path, reader: GGUFReader, config: Any, progress: Progress
) -> Iterator[tuple[str, torch.Tensor]]:
    heads = {
        "self_attn.q_proj": config.num_attention_heads,
        "self_attn.k_proj": config.num_key_value_heads,
    }
    for done, tensor in enumerate(reader.tensors):
        progress("convert GGUF", done, len(reader.tensors))
        # GGUF lists dimensions from the innermost out.
        shape = tuple(int(size) for size in reversed(tensor.shape))
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        name = _GLOBAL_NAMES.get(tensor.name)
        if name is None:
            _, layer, part = tensor.name.removesuffix(".weight").split(".")
            if part not in _LAYER_NAMES:
                raise UnreadableGguf(path, f"unknown tensor {tensor.name}")
            module = _LAYER_NAMES[part]
            name = f"model.layers.{layer}.{module}.weight"
            if module in heads:
                values = _unpermute(values, heads[module])
        yield name, torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    progress("convert GGUF", len(reader.tensors), len(reader.tensors))


def _unpermute(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo GGUF's interleaving of each head's two rotary halves; [heads * dim, K]."""
    rows, columns = values.shape
    halves = values.reshape(heads, rows // heads // 2, 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(path: Path, fields: dict[str, Any]) -> Tokenizer:
    kind = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise UnreadableGguf(path, f"tokenizer is {kind[0]} with pre-tokenizer {kind[1]}")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == _CONTROL_TOKEN
        ]
    )
    return tokenizer


def _save_tokenizer(tokenizer: Tokenizer, fields: dict[str, Any], out: Path) -> None:
    def token(which: str) -> str:
        return str(fields["tokenizer.ggml.tokens"][fields[f"tokenizer.ggml.{which}_token_id"]])

    wrapped = _TRANSFORMERS.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=token("bos"),
        eos_token=token("eos"),
        pad_token=token("padding"),
        unk_token=token("unknown"),
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(out)
