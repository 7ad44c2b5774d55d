"""Reading ``budget.toml``."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.budget import Budget
from manifests.errors import BadDocument, NotFound


def load(folder: Path, text: str) -> Budget:
    path = folder / "budget.toml"
    path.write_text(text, "utf-8")
    return Budget.load(path)


def test_limits_are_read_with_their_levels(tmp_path: Path) -> None:
    budget = load(
        tmp_path,
        """
        [gate]
        inconclusive = "fail"
        [limits.wasm-q4]
        decode_tokens_per_second = { min = 10 }
        load_cold_ms = { max = 8000, level = "warn" }
        """,
    )
    assert budget.gate.inconclusive == "fail"
    limits = budget.limits["wasm-q4"]
    assert (limits["decode_tokens_per_second"].min, limits["decode_tokens_per_second"].level) == (
        10,
        "error",
    )
    assert (limits["load_cold_ms"].max, limits["load_cold_ms"].level) == (8000, "warn")


def test_an_unjudgeable_limit_passes_unless_asked(tmp_path: Path) -> None:
    assert load(tmp_path, "[limits]").gate.inconclusive == "pass"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[limits.wasm-q4]\nload_cold_ms = {}", "min, max or regression"),
        ("[limits.wasm-q4]\nload_cold_ms = { most = 3 }", "limits.wasm-q4.load_cold_ms.most"),
        ("[limits.wasm-q4]\nload_cold_ms = { max = 3, level = 'loud' }", "level"),
        ("[gate]\ninconclusive = 'maybe'\n[limits]", "gate.inconclusive"),
        ("[limits.wasm-q4]\nload_cold_ms = { regression = 0 }", "regression"),
        ("[limits.wasm-q4]\nload_cold_ms = { regression = 0.1, of = 'reference' }", "min or max"),
        ("[limits.wasm-q4]\nload_cold_ms = { max = 3, statistic = 'mean' }", "statistic"),
        ("[defaults]\nload_cold_ms = 3", "defaults.load_cold_ms"),
        ("[limits", "budget.toml"),
    ],
)
def test_what_is_no_budget_is_refused_by_field(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadDocument) as caught:
        load(tmp_path, text)
    assert told in str(caught.value)
    assert "budget.toml" in str(caught.value)
    assert caught.value.next_step


def test_a_budget_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_bytes(b"[limits]\n# \xff")
    with pytest.raises(BadDocument):
        Budget.load(path)


def test_a_missing_budget_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"absent\.toml"):
        Budget.load(tmp_path / "absent.toml")
    with pytest.raises(NotFound):
        Budget.load(tmp_path)


def test_a_targets_own_limit_goes_before_the_defaults(tmp_path: Path) -> None:
    budget = load(
        tmp_path,
        """
        [defaults]
        console_errors = { max = 0 }
        load_cold_ms = { max = 9000, level = "warn" }
        [limits.wasm-q4]
        load_cold_ms = { level = "off" }
        """,
    )
    assert budget.of("webgpu-q4") == budget.defaults
    own = budget.of("wasm-q4")
    assert (own["console_errors"].max, own["load_cold_ms"].level) == (0, "off")
