"""Why a ledger is not believed."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import BadInput


class LedgerUntrue(BadInput):
    """A tensor is not what the ledger says of it."""

    code = "ledger-untrue"

    def __init__(self, bundle: Path, tensor: str, reason: str) -> None:
        super().__init__(
            f"{bundle}: tensor {tensor}: {reason}",
            "do not ship this bundle: export again, and report it if that does not help",
        )


class NoProof(BadInput):
    """A tensor is kept in a way that only the exporter itself reads."""

    code = "proof-unsupported"

    def __init__(self, checkpoint: Path, what: str) -> None:
        super().__init__(
            f"{checkpoint}: {what} cannot be proven: there is no second reading of its format",
            "'tabwright verify' without --against still checks that the bundle is whole",
        )
