"""llm-compressor's modifiers where release 0.14 does not do what a chain needs.

GPTQ writes over zeros that a pruning left: :class:`ZeroKeepingGptq` holds them.  Pruning
with OWL's profile stops with an error: it runs the model before the session that its run
asks for, and looks shares up by target that it made by layer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from compressed_tensors.quantization.utils import calculate_range
from compressed_tensors.utils.impl_backend import ImplBackend
from llmcompressor.core import State
from llmcompressor.modifiers import Modifier
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.gptq.helpers import column_scale_window
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.modifiers.transform.smoothquant.utils import LayerMap
from llmcompressor.utils.pytorch.module import infer_sequential_targets

from exporter.compress.models import linears_of

_BACKENDS: Any = ImplBackend
#: Linears, and the norm that they read.
_Mapping: TypeAlias = tuple[Any, ...] | list[Any]
#: Where the weights that are being quantised are zero, bool [N, K], columns in GPTQ's order.
_ZEROS: ContextVar[torch.Tensor | None] = ContextVar("zeros", default=None)


class ZeroKeepingGptq(GPTQModifier):
    """GPTQ of symmetric integers that leaves zeros at zero, and mends the error around them."""

    def compress_module_list(self, module_list: list[torch.nn.Module]) -> None:
        """Quantise ``module_list`` one by one, each with its own zeros held."""
        library: Any = super()
        for module in module_list:
            weight: Any = module.weight
            hessian = self._hessians[module] / self._num_samples[module]
            # As the library will sort them: the most active inputs first.
            order = torch.argsort(torch.diagonal(hessian)[None], dim=-1, descending=True)[0]
            with held(weight.data[:, order] == 0):
                library.compress_module_list([module])


@contextmanager
def held(zeros: torch.Tensor) -> Iterator[None]:
    """Hold ``zeros``, bool [N, K] with columns in GPTQ's order, in the blocks quantised here."""
    token = _ZEROS.set(zeros)
    try:
        yield
    finally:
        _ZEROS.reset(token)


@_BACKENDS.register(  # type: ignore[untyped-decorator]
    "gptq_block_update", req=lambda *_, **__: _ZEROS.get() is not None, priority=-1
)
def zero_keeping_block_update(
    weights: torch.Tensor,
    inverse: torch.Tensor,
    quantised: torch.Tensor,
    errors: torch.Tensor,
    losses: torch.Tensor,
    *,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    global_scale: torch.Tensor | None,
    g_idx: torch.Tensor | None,
    quant_args: Any,
    i1: int,
) -> None:
    """One block of columns of GPTQ (https://arxiv.org/abs/2210.17323, section 3.3).

    Tensors are float32 [1, N, columns] but for ``inverse`` [1, columns, columns], the upper
    Cholesky factor of the inverse Hessian; ``quantised``, ``errors`` and ``losses`` are
    written.  A weight that is held is quantised to zero, so that its error is handed on.
    """
    zeros = _ZEROS.get()
    assert zeros is not None
    assert quant_args.symmetric
    rows, width = weights.shape[-2:]
    steps, _ = column_scale_window(
        scale, zero_point, global_scale, g_idx, quant_args, num_rows=rows, i1=i1, i2=i1 + width
    )
    steps = steps.reshape(rows, width).float()
    keeps = ~zeros[:, i1 : i1 + width]
    least, most = calculate_range(quant_args, weights.device)
    values, factors = weights[0], inverse[0]
    for column in range(width):
        value, step, diagonal = values[:, column], steps[:, column], factors[column, column]
        rounded = (value / step).round_().clamp_(least, most).mul_(step).mul_(keeps[:, column])
        error = (value - rounded) / diagonal
        quantised[0, :, column] = rounded
        errors[0, :, column] = error
        losses[0, :, column] = error.square()
        values[:, column:].addr_(error, factors[column, column:], alpha=-1)


class _PerLayer:
    """Pruning whose targets are the decoder's layers, so that each may have its own share."""

    targets: str | list[str]

    def on_initialize(self, state: Any, **kwargs: Any) -> bool:
        """Aim at the layers instead of at all linears: that leaves the head alone, too."""
        self.targets = infer_sequential_targets(state.model)
        started: Any = super()
        return bool(started.on_initialize(state, **kwargs))

    def _infer_owl_layer_sparsity(self, model: Any, layers: Any, dataloader: Any) -> Any:
        """OWL's shares in the layers' order, as they are looked up."""
        shares: Any = super()
        return list(shares._infer_owl_layer_sparsity(model, layers, dataloader).values())  # noqa: SLF001 - see above

    def _get_activations(self, model: Any, dataloader: Any, *_: Any) -> Any:
        """The norm of every input of every linear over all samples, float32 [K] by name."""
        squares: defaultdict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(()))

        def add(name: str, inputs: tuple[torch.Tensor, ...]) -> None:
            squares[name] = squares[name] + inputs[0].float().square().sum(dim=(0, 1))

        handles = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs))
            for name, module in linears_of(model).items()
        ]
        try:
            with torch.no_grad():
                for batch in dataloader:
                    model(**batch, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return {name: total.sqrt() for name, total in squares.items()}


class ReadingSmoothQuant(SmoothQuantModifier):
    """SmoothQuant (https://arxiv.org/abs/2211.10438), from the norm that a linear reads.

    llm-compressor 0.14 takes Gemma's norm after attention for the one that its feed-forward
    reads. There it scales what is added to the residual: a smoothed model says nothing. LFM2
    it does not know.
    """

    def on_initialize(self, state: State, **kwargs: Any) -> bool:
        """Choose the norms by what the model has, before the library chooses by its name."""
        names = {name.rpartition(".")[2] for name, _ in state.model.named_modules()}
        for norm, found in _READ_FROM.items():
            if norm in names:
                self.mappings = found(state.model)
        return bool(super().on_initialize(state, **kwargs))


def _gemma(_: Any) -> list[_Mapping]:
    return [
        LayerMap(["re:.*q_proj", "re:.*k_proj", "re:.*v_proj"], "re:.*input_layernorm"),
        LayerMap(["re:.*gate_proj", "re:.*up_proj"], "re:.*pre_feedforward_layernorm"),
    ]


def _lfm2(model: Any) -> list[_Mapping]:
    """One norm is before attention in some layers, before a convolution in the others."""
    read = {"full_attention": ["re:.*q_proj", "re:.*k_proj", "re:.*v_proj"]}
    read |= {"conv": ["re:.*conv.in_proj"]}
    mappings: list[_Mapping] = [LayerMap(["re:.*w1", "re:.*w3"], "re:.*ffn_norm")]
    for kind, linears in read.items():
        layers = "|".join(str(i) for i, each in enumerate(model.config.layer_types) if each == kind)
        if layers:
            mappings.append(LayerMap(linears, rf"re:.*layers\.({layers})\.operator_norm$"))
    return mappings


#: By a norm that only such models have: which norm each group of linears reads.
_READ_FROM = {"pre_feedforward_layernorm": _gemma, "operator_norm": _lfm2}


class PerLayerSparseGpt(_PerLayer, SparseGPTModifier):
    """SparseGPT (https://arxiv.org/abs/2301.00774), layer by layer."""


class PerLayerWanda(_PerLayer, WandaPruningModifier):
    """Wanda (https://arxiv.org/abs/2306.11695), layer by layer."""


#: What :class:`exporter.compress.recipes.Modifier` names.
MODIFIERS: MappingProxyType[str, type[Modifier]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            PerLayerSparseGpt,
            PerLayerWanda,
            QuantizationModifier,
            ReadingSmoothQuant,
            ZeroKeepingGptq,
        )
    }
)
