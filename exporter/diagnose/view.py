"""A diagnosis for a person at a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from manifests.diagnosis import Deviation, Diagnosis


def diagnosis_view(found: Diagnosis) -> RenderableType:
    """Both comparisons, the tensors beyond the tolerance marked, and what it comes to."""
    parts: list[RenderableType] = [_table("Layer by layer", found.layers, found.tolerance)]
    if found.tensors:
        parts.append(_table("Tensor by tensor", found.tensors, found.tolerance))
    parts.append(Text(conclusion(found), style="green" if found.first is None else "bold red"))
    return Group(*parts)


def conclusion(found: Diagnosis) -> str:
    """One sentence or two: what was found."""
    where = f"{found.target} ({found.loop} loop, {found.tokens} tokens)"
    damaged = ""
    if found.changed:
        listed = ", ".join(found.changed)
        damaged = f" In the bundle, these weights are not the checkpoint's: {listed}."
    if found.first is None:
        return f"{where}: no tensor is beyond {found.tolerance:g} of PyTorch's.{damaged}"
    if not damaged:
        damaged = " Its weights are the checkpoint's: the browser computes it differently."
    return f"{where}: the first tensor beyond {found.tolerance:g} is {found.first}.{damaged}"


def _table(title: str, rows: tuple[Deviation, ...], tolerance: float) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("Tensor")
    table.add_column("Relative deviation", justify="right")
    table.add_column("Largest difference", justify="right")
    for row in rows:
        style = "" if row.relative <= tolerance else "red"
        cells = (str(row.point), f"{row.relative:.2e}", f"{row.largest:.2e}")
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table
