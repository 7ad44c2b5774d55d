"""One target to measure, and where its prompts come from."""

from __future__ import annotations

from dataclasses import dataclass

from browser_harness.answers import OpenReference
from browser_harness.flags import AdapterKind
from browser_harness.launch import Session
from browser_harness.loads import Bench
from browser_harness.plan import Plan
from browser_harness.prompts import Prompts
from browser_harness.serve import StaticServer
from browser_harness.watch import Watch
from manifests.bundle import Manifest
from manifests.questions import Questions
from manifests.reference import Greedy


@dataclass(frozen=True)
class Job:
    """One target to measure.

    Attributes:
        manifest: of the bundle that ``site`` serves.
        name: the target.
        reference: PyTorch's answers; without them parity is left out.
        plan: how much.
        threads: WASM threads.
        questions: what is asked besides.
        adapter: the WebGPU adapter that was settled on; ``none`` for a target without one.
    """

    manifest: Manifest
    name: str
    reference: OpenReference | None
    plan: Plan
    threads: int
    questions: Questions | None = None
    adapter: AdapterKind = "none"

    @property
    def weights(self) -> str:
        """The target's weight set."""
        return self.manifest.targets[self.name].weights

    def shared_case(self) -> Greedy | None:
        """The greedy case whose prompt follows every load: the shortest, to save time."""
        if self.reference is None or not self.plan.share_first:
            return None
        cases = self.reference.answers(self.weights).greedy
        return min(cases, key=lambda case: len(case.prompt), default=None)

    def prompts(self) -> Prompts:
        """Prompts for what only speed is asked of."""
        case = self.shared_case()
        scored = self.reference.document.scored if self.reference else ()
        return Prompts(ids=scored[0].ids if scored else (), first=case.prompt if case else ())

    def bench(
        self, session: Session, site: StaticServer, watch: Watch, console: list[str]
    ) -> Bench:
        """The target in the browser ``session``; ``console`` takes what its pages write."""
        return Bench(
            site=site,
            target=self.name,
            threads=self.threads,
            plan=self.plan,
            adapter=self.adapter,
            session=session,
            watch=watch,
            console=console,
        )
