"""Nodes in order, each made from the values of those before it."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

Attribute = int | float | str | list[int]


@dataclass
class Chain:
    """Nodes that go into a graph together; their values are called after ``name``."""

    name: str
    nodes: list[ir.Node] = field(default_factory=list)

    def then(
        self,
        operator: str,
        *inputs: ir.Value | None,
        domain: str = "",
        **attributes: Attribute,
    ) -> ir.Value:
        """The one value of a new node."""
        [value] = self.split(operator, *inputs, parts=1, domain=domain, **attributes)
        return value

    def split(
        self,
        operator: str,
        *inputs: ir.Value | None,
        parts: int,
        domain: str = "",
        **attributes: Attribute,
    ) -> tuple[ir.Value, ...]:
        """The ``parts`` values of a new node."""
        node = ir.node(operator, inputs, attributes, domain=domain, num_outputs=parts)
        for index, value in enumerate(node.outputs):
            value.name = f"{self.name}.{len(self.nodes)}" + (f".{index}" if parts > 1 else "")
        self.nodes.append(node)
        return tuple(node.outputs)
