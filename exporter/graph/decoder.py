"""The decoder, declared from mobius's components.

mobius has a model class for each of our families, but where layers differ its rewriting to
GroupQueryAttention drops their windows.  Here each layer has its own window, rotation and
soft cap: see :mod:`exporter.graph.attention` and docs/decisions/0010.

Parameters are named as transformers names Llama's; a family's own names are in its row.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from mobius.components import MLP, Embedding, FusedGateUpMLP, Linear
from onnxscript import nn

from exporter.graph.attention import ATTENTIONS, Pair, Step
from exporter.graph.convolution import ShortConvolution
from exporter.graph.norms import norm
from exporter.graph.rotary import Rotary
from exporter.graph.settings import Convolution, DecoderSettings, Layer
from exporter.graph.task import Carried

States = tuple[ir.Value, ...]


class Tables(nn.Module):
    """Cosines and sines of one rotation, as initializers."""

    def __init__(self, rotary: Rotary, length: int) -> None:
        super().__init__()
        cosines, sines = rotary.tables(length)
        self.cosines = nn.Parameter(list(cosines.shape), data=ir.tensor(cosines))
        self.sines = nn.Parameter(list(sines.shape), data=ir.tensor(sines))

    def forward(self, op: Any) -> Pair:
        """The tables, each [positions, width / 2]."""
        del op
        return self.cosines, self.sines


class Block(nn.Module):
    """Attention or a convolution, then an MLP, each between a norm and a residual addition."""

    def __init__(self, settings: DecoderSettings, layer: Layer | Convolution) -> None:
        super().__init__()
        self.conv = self.self_attn = None
        if isinstance(layer, Convolution):
            self.conv = ShortConvolution(settings, layer)
        else:
            self.self_attn = ATTENTIONS[settings.attention_cap is not None](settings, layer)
        mlp = FusedGateUpMLP if settings.family.fused_projections else MLP
        self.mlp = mlp(settings)
        self._sandwiched = settings.family.sandwich_norms
        width = settings.hidden_size
        self.input_layernorm = norm(settings, width)
        # transformers calls the MLP's norm so where attention's output has none.
        self.post_attention_layernorm = norm(settings, width)
        if self._sandwiched:
            self.pre_feedforward_layernorm = norm(settings, width)
            self.post_feedforward_layernorm = norm(settings, width)

    @property
    def mixer(self) -> Any:
        """What lets positions see each other."""
        return self.conv or self.self_attn

    def forward(
        self, op: Any, hidden: ir.Value, step: Step, past: States
    ) -> tuple[ir.Value, States]:
        """Hidden states [batch, positions, hidden_size], and the layer's states."""
        attended, present = self.mixer(op, self.input_layernorm(op, hidden), step, past)
        if self._sandwiched:
            hidden = op.Add(hidden, self.post_attention_layernorm(op, attended))
            fed = self.mlp(op, self.pre_feedforward_layernorm(op, hidden))
            return op.Add(hidden, self.post_feedforward_layernorm(op, fed)), present
        hidden = op.Add(hidden, attended)
        fed = self.mlp(op, self.post_attention_layernorm(op, hidden))
        return op.Add(hidden, fed), present


class Body(nn.Module):
    """Embedding, layers and the last norm."""

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self._scale = settings.hidden_size**0.5 if settings.family.scaled_embedding else None
        self.embed_tokens = Embedding(settings.vocab_size, settings.hidden_size)
        self.layers = nn.ModuleList([Block(settings, layer) for layer in settings.layers])
        self.norm = norm(settings, settings.hidden_size)
        # Rotations that no layer asks for would be tables in the file for nothing.
        used = {layer.rotary for layer in settings.layers if isinstance(layer, Layer)}
        self._kinds = [kind for kind in settings.rotaries if kind in used]
        self.rotaries = nn.ModuleList(
            [Tables(settings.rotaries[kind], settings.context_length) for kind in self._kinds]
        )

    def carried(self) -> list[tuple[Carried, ...]]:
        """What each layer hands from one step to the next."""
        blocks: Any = self.layers
        return [block.mixer.carried(index) for index, block in enumerate(blocks)]

    def forward(
        self, op: Any, input_ids: ir.Value, attention_mask: ir.Value, past: list[States]
    ) -> tuple[ir.Value, list[States]]:
        """Hidden states [batch, positions, hidden_size], and all states by layer."""
        hidden = self.embed_tokens(op, input_ids)
        if self._scale is not None:
            hidden = op.Mul(hidden, self._scale)
        tables = {kind: module(op) for kind, module in zip(self._kinds, self.rotaries, strict=True)}
        step = Step(op, input_ids, attention_mask, tables)
        presents = []
        for block, before in zip(self.layers, past, strict=True):
            hidden, present = block(op, hidden, step, before)
            presents.append(present)
        return self.norm(op, hidden), presents


class Decoder(nn.Module):
    """A causal language model, as :class:`exporter.graph.task.Generation` calls it."""

    config_class = DecoderSettings

    def __init__(self, settings: DecoderSettings) -> None:
        super().__init__()
        self.model = Body(settings)
        self.lm_head = Linear(settings.hidden_size, settings.vocab_size, bias=False)
        if settings.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        self._cap = settings.logits_cap

    def carried(self) -> list[tuple[Carried, ...]]:
        """What each layer hands from one step to the next."""
        return self.model.carried()

    def forward(
        self, op: Any, input_ids: ir.Value, attention_mask: ir.Value, past: list[States]
    ) -> tuple[ir.Value, list[States]]:
        """Logits [batch, positions, vocabulary], and all states by layer."""
        hidden, presents = self.model(op, input_ids, attention_mask, past)
        logits = self.lm_head(op, hidden)
        if self._cap is not None:
            logits = op.Mul(op.Tanh(op.Div(logits, self._cap)), self._cap)
        return logits, presents
