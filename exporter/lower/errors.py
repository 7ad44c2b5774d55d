"""A graph that is not what a pass expects."""

from __future__ import annotations

from manifests.errors import TabwrightError


class GraphUnexpected(TabwrightError):
    """mobius declared the model in a way that no pass knows how to lower."""

    code = "graph-unexpected"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the declared graph cannot be lowered: {reason}",
            "report it with the checkpoint's config.json and the version of mobius-onnx",
        )
