"""GGUF to checkpoint: a tiny Llama written the way llama.cpp lays it out, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.compress.errors import TokenizerNotLossless, UnreadableGguf
from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS

LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def interleave_rotary_halves(weight: Any, heads: int) -> Any:
    """The order of rows in GGUF: a head's row i and row i + dim/2 become neighbours."""
    rows, columns = weight.shape
    dim = rows // heads
    out = np.empty_like(weight)
    for head in range(heads):
        for i in range(dim // 2):
            out[head * dim + 2 * i] = weight[head * dim + i]
            out[head * dim + 2 * i + 1] = weight[head * dim + i + dim // 2]
    return out.reshape(rows, columns)


def write_gguf(checkpoint: Path, path: Path, *, architecture: str = "llama") -> None:
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    writer = GGUFWriter(path, architecture)
    writer.add_vocab_size(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    model = json.loads((checkpoint / "tokenizer.json").read_text("utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL_TOKENS else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        weight = tensor.float().numpy()
        if name == "model.embed_tokens.weight":
            writer.add_tensor("token_embd.weight", weight)
        elif name == "model.norm.weight":
            writer.add_tensor("output_norm.weight", weight)
        elif name == "lm_head.weight":
            writer.add_tensor("output.weight", weight)
        else:
            layer, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            part = LAYER[module]
            if part in heads:
                weight = interleave_rotary_halves(weight, heads[part])
            writer.add_tensor(f"blk.{layer}.{part}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("variant", ["bf16", "bf16-untied"])
def test_what_went_in_comes_out(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from exporter.compress.gguf_llama import convert_gguf

    source, out = tiny_checkpoint(variant), tmp_path / "out"
    write_gguf(source, tmp_path / "model.gguf")
    convert_gguf(tmp_path / "model.gguf", out)

    expected, found = (load_file(path / "model.safetensors") for path in (source, out))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert bool((found[name] == values).all()), name
    configs = [json.loads((path / "config.json").read_text("utf-8")) for path in (source, out)]
    for config in configs:
        del config["initializer_range"], config["pad_token_id"]
    assert configs[1] == configs[0]

    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token == SPECIAL_TOKENS[2]
    assert tokenizer.chat_template == CHAT_TEMPLATE
    text = "Numbers 1024 and ٣٤٥, <|im_end|> then  two spaces"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert 2 in ids
    assert [tokenizer.decode(i) for i in tokenizer("1024")["input_ids"]] == ["1", "0", "2", "4"]


def test_another_architecture_is_refused(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from exporter.compress.gguf_llama import convert_gguf

    write_gguf(tiny_checkpoint("bf16"), tmp_path / "model.gguf", architecture="gemma3")
    with pytest.raises(UnreadableGguf, match="architecture is gemma3"):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_loses_spaces_is_refused(
    tiny_checkpoint: Callable[[str], Path],
) -> None:
    """transformers' own reading of the demo's GGUF decodes with a '▁' decoder."""
    from tokenizers import Tokenizer, decoders

    from exporter.compress.roundtrip import check_lossless

    path = tiny_checkpoint("bf16") / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    check_lossless(path, tokenizer)
    tokenizer.decoder = decoders.Metaspace()
    with pytest.raises(TokenizerNotLossless, match=r"tokenizer\.json"):
        check_lossless(path, tokenizer)
