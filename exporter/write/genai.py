"""``genai_config.json``: how onnxruntime-genai opens the bundle."""

from __future__ import annotations

from typing import Any

from exporter.checkpoint.config import DecoderConfig
from manifests.bundle import Model, State, TargetEntry

GENAI_CONFIG = "genai_config.json"


def describe_for_genai(
    model: Model, decoder: DecoderConfig, entries: dict[str, TargetEntry]
) -> dict[str, Any]:
    """The file's content.

    It names one graph.  genai runs on a CPU unless told otherwise, so that is the graph
    for the CPU where there is one; the others have the same inputs and outputs.
    """
    entry = min(entries.values(), key=lambda each: each.execution_provider != "wasm")
    return {
        "model": {
            "type": model.model_type,
            "vocab_size": model.vocab_size,
            "context_length": model.context_length,
            "eos_token_id": list(model.eos_token_ids),
            "pad_token_id": next(iter(model.eos_token_ids), 0),
            **({} if model.bos_token_id is None else {"bos_token_id": model.bos_token_id}),
            "decoder": {
                "filename": entry.graph,
                "session_options": {"provider_options": [], **entry.session_config},
                "hidden_size": decoder.hidden_size,
                "num_hidden_layers": model.layers,
                "num_attention_heads": decoder.num_attention_heads,
                **_states(entry.states, model.layers),
            },
        },
        "search": {
            "do_sample": False,
            "max_length": model.context_length,
            # The conventional graph's cache grows: its past and present are two tensors.
            "past_present_share_buffer": False,
        },
    }


def _states(states: tuple[State, ...], layers: int) -> dict[str, Any]:
    """Sizes of the KV caches and names of all states; genai writes a layer's number as %d."""
    inputs = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    outputs = {"logits": "logits"}
    attended = set[int]()
    sizes: dict[str, Any] = {}
    for state in states:
        kind, number, *part = state.input.split(".")
        if part:
            attended.add(int(number))
            name = f"{part[0]}_names"
            inputs[f"past_{name}"] = f"{kind}.%d.{part[0]}"
            outputs[f"present_{name}"] = f"present.%d.{part[0]}"
            _, heads, _, size = state.shape
            sizes |= {"num_key_value_heads": heads, "head_size": size}
        else:
            inputs["past_conv_names"] = f"{kind}.%d"
            outputs["present_conv_names"] = "present_conv.%d"
            sizes["conv_cache_size"] = state.shape[2]
    if len(attended) < layers:
        kinds = ("full_attention" if layer in attended else "conv" for layer in range(layers))
        sizes["layer_types"] = list(kinds)
    return {**sizes, "inputs": inputs, "outputs": outputs}
