"""Nothing that is measured leaves the machine: counted in Chromium's own log of its network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from browser_harness import launch
from browser_harness.flags import flags_for
from browser_harness.measure import measure
from browser_harness.plan import Options
from tests.faults.catalogue import BOTH
from tests.faults.runner import BRIEF

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

#: Where the browser's own requests are sent to end: ``browser_harness/flags.py``.
NOWHERE = "127.0.0.1:9"


@pytest.fixture(scope="module", params=BOTH)
def events(
    request: pytest.FixtureRequest, bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, dict[str, Any]]]:
    """What the network of a whole measurement did: kinds of events, and their details."""
    log = tmp_path_factory.mktemp("net") / "log.json"
    with pytest.MonkeyPatch.context() as patch:
        logging = f"--log-net-log={log}"
        patch.setattr(launch, "flags_for", lambda kind: (*flags_for(kind), logging))
        options = Options(adapter="software", threads=2, plans={"full": BRIEF, "software": BRIEF})
        report = measure(bundle, targets=(request.param,), options=options)
    assert report.targets[request.param].failure is None
    document = _read(log)
    names = {number: name for name, number in document["constants"]["logEventTypes"].items()}
    return [(names[event["type"]], event.get("params", {})) for event in document["events"]]


def test_the_page_asks_its_own_server_only(events: list[tuple[str, dict[str, Any]]]) -> None:
    started = [details for kind, details in events if kind == "URL_REQUEST_START_JOB"]
    # What the browser asks for by itself has no page that began it.
    asked = [each for each in started if each.get("initiator", "not an origin") != "not an origin"]
    assert len(asked) > 10
    assert [each["url"] for each in asked if _origin(each["url"]) != each["initiator"]] == []
    assert len({each["initiator"] for each in asked}) == 1


def test_nothing_leaves_the_machine(events: list[tuple[str, dict[str, Any]]]) -> None:
    hosts = {address.rpartition(":")[0] for address in _connected(events)}
    assert hosts == {"127.0.0.1"}
    ports = {address for address in _connected(events) if address != NOWHERE}
    assert len(ports) == 1
    assert {kind for kind, _ in events} & {"DNS_TRANSACTION", "UDP_BYTES_SENT"} == set()


def _read(log: Path) -> Any:
    text = log.read_text("utf-8")
    try:
        return json.loads(text)
    except ValueError:
        # A browser that is slow to close is killed while it writes its last lines.
        return json.loads(text[: text.rindex(",\n")] + "]}")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _connected(events: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    for kind, details in events:
        if kind == "TCP_CONNECT":
            yield from details.get("address_list", ())
