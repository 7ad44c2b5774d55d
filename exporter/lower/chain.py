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
        node = ir.node(operator, inputs, attributes, domain=domain)
        [value] = node.outputs
        value.name = f"{self.name}.{len(self.nodes)}"
        self.nodes.append(node)
        return value
