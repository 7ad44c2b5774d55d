"""What two reports must share before their figures are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from manifests.errors import BadInput
from manifests.report import DecodeRun, PrefillSample, Report, TargetReport

#: What stands where a report does not say.
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same; ``target`` is empty where it is the whole report's."""

    target: str
    what: str
    old: str
    new: str

    def __str__(self) -> str:
        """As a person reads it, e.g. ``wasm-q4's threads (1, now 2)``."""
        owner = f"{self.target}'s " if self.target else ""
        return f"{owner}{self.what} ({self.old}, now {self.new})"


class NotComparable(BadInput):
    """Two reports were measured in different environments."""

    code = "not-comparable"

    def __init__(self, differences: Iterable[Difference]) -> None:
        listed = "; ".join(str(difference) for difference in differences)
        super().__init__(
            f"the reports cannot be compared, for they differ in {listed}",
            "measure the baseline again in this environment; 'tabwright compare' shows both",
        )


class NothingShared(BadInput):
    """Two reports have no target in common."""

    code = "nothing-to-compare"

    def __init__(self, old: Iterable[str], new: Iterable[str]) -> None:
        super().__init__(
            f"the reports share no target: {', '.join(old) or 'none'} and "
            f"{', '.join(new) or 'none'}",
            "compare reports of the same targets",
        )


def facts(report: Report, target: TargetReport) -> dict[str, str]:
    """What explains the figures of ``target`` besides the bundle, by name.

    Versions are left out that a bundle carries with it (onnxruntime-web), and those of a
    browser below its major one.
    """
    machine, browser, adapter = report.machine, report.browser, target.adapter
    system = machine.system.replace("-", " ").partition(" ")[0]
    return {
        "machine": f"{machine.cpu}, {machine.cores} cores, {system}",
        "browser": UNKNOWN
        if browser is None
        else f"{browser.name} {_major(browser.version)}{', headless' if browser.headless else ''}",
        "adapter": "none"
        if adapter is None
        else " ".join(
            part
            for part in (adapter.vendor, adapter.architecture, adapter.device, adapter.description)
            if part
        ),
        "threads": str(target.threads),
        "prompts": _prompts(target),
    }


def _major(version: str) -> str:
    return version.removeprefix("Chromium ").partition(".")[0]


def _prompts(target: TargetReport) -> str:
    """Lengths and digests of the prompts, and how long the runs after them were."""
    prefill = sorted({_prompt(sample) for sample in target.prefill})
    decode = sorted({f"{len(run.ms)} after {_prompt(run)}" for run in target.decode})
    return ", ".join((*prefill, *decode)) or "none"


def _prompt(sample: PrefillSample | DecodeRun) -> str:
    digest = f" #{sample.prompt[:8]}" if sample.prompt else ""
    return f"{sample.prompt_tokens} tokens{digest}"


def shared_targets(old: Report, new: Report) -> list[str]:
    """Targets that both reports measured to the end."""
    return [
        name
        for name, target in new.targets.items()
        if target.failure is None and name in old.targets and old.targets[name].failure is None
    ]


def differences(old: Report, new: Report) -> list[Difference]:
    """What differs between the environments of the targets that both reports hold.

    A target that failed in either is left out: half a run says little of its environment.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    names = shared_targets(old, new)
    for name in names:
        before, after = facts(old, old.targets[name]), facts(new, new.targets[name])
        for what, value in before.items():
            if value != after[what]:
                found.setdefault((what, value, after[what]), []).append(name)
    # What all targets share is said once.
    return [
        Difference("" if owners == names else owner, *key)
        for key, owners in found.items()
        for owner in (owners if owners != names else owners[:1])
    ]


def check_comparable(old: Report, new: Report) -> None:
    """Refuse reports whose figures say nothing about each other.

    Raises:
        NothingShared: they have no target in common.
        NotComparable: adapter, browser, prompts, threads or machine differ; lists them.
    """
    if not old.targets.keys() & new.targets.keys():
        raise NothingShared(old.targets, new.targets)
    if found := differences(old, new):
        raise NotComparable(found)
