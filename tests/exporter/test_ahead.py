"""What is made ahead comes in order, fails at its turn, and is bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from exporter.quant.ahead import made_ahead


def test_results_come_in_the_order_of_the_items() -> None:
    """The first item is made to end last."""
    second_began = threading.Event()

    def make(item: int) -> int:
        if item == 0:
            second_began.wait(timeout=30)
        second_began.set()
        return item * item

    assert list(made_ahead(make, range(20))) == [n * n for n in range(20)]


def test_an_error_is_raised_at_its_items_turn() -> None:
    """What came before it is yielded first."""

    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    results = made_ahead(make, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_few_items_are_taken_ahead_and_none_after_it_is_left() -> None:
    """A model is not read into memory because its consumer is slow."""
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    results = made_ahead(lambda item: item, items())
    next(results)
    assert len(taken) < 10
    results.close()
    assert len(taken) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("tabwright")]
