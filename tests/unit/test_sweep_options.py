"""How a command line asks for sweeps."""

from __future__ import annotations

import click
import pytest

from browser_harness.sweeps.asked import NETWORKS, Asked, SweepParameter


def read(text: str) -> Asked:
    return SweepParameter().convert(text, None, None)


def test_names_with_and_without_a_value() -> None:
    assert read("context") == Asked("context")
    assert read("context=512").number == 512
    assert read("loads=slow-4g") == Asked("loads", "slow-4g")
    assert {read(f"loads={name}").value for name in NETWORKS} == set(NETWORKS)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("speed", "'speed' is no sweep: choose among context, prompts, loads, leaks"),
        ("context=", "'' is not the number of positions"),
        ("context=0", "'0' is not the number of positions"),
        ("context=-3", "'-3' is not the number"),
        ("context=1e6", "'1e6' is not the number"),
        ("context=²", "'²' is not the number"),
        ("leaks=9999999", "'9999999' is not the number"),
        ("loads=5g", "'5g' is not a network: cable, fast-4g"),
    ],
)
def test_what_is_refused(text: str, what: str) -> None:
    with pytest.raises(click.BadParameter, match="^" + what.replace("(", r"\(")):
        read(text)
