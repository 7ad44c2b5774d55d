"""The process that reads mutants, and takes down what becomes of each."""

from __future__ import annotations

import faulthandler
import re
import resource
import signal
import struct
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

from manifests.errors import TabwrightError
from tests.attacks.kinds import Kind
from tests.attacks.mutate import mutate_bytes, mutate_json, write
from tests.attacks.walk import shapes_of

#: Seconds of processor time for one input; wall time would measure the machine's other work.
MAX_SECONDS = 2.0
#: Resident memory above what the valid inputs took.
MAX_BYTES = 512 << 20
PASSED = "passed"
#: Address space above the start: what asks for more gets a MemoryError.
_ADDRESS_SPACE = 2 << 30
_MAX_CORPUS = 256
#: What reading a mutant as the document that it was can raise.
_NO_DOCUMENT = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class HungError(BaseException):
    """An input took too long; no handler of Exception can swallow it."""


class Begun(NamedTuple):
    """A mutant of ``kind`` is about to be read in ``folder``."""

    kind: str
    folder: Path


class Ended(NamedTuple):
    """It was refused with ``code``, or passed; ``finding`` tells what must not be."""

    code: str
    finding: str


class Done(NamedTuple):
    """The plan is fulfilled."""


@dataclass(frozen=True)
class Plan:
    """What a worker is to do; it ends after so many ``rounds``, or never."""

    kinds: Mapping[str, Kind]
    seed: int
    rounds: int | None
    folder: Path


class Attack:
    """One kind: its valid input on disk, and the mutants that showed something new."""

    def __init__(self, name: str, kind: Kind, folder: Path) -> None:
        self.name = name
        self.every = kind.every
        self.folder = folder
        self._kind = kind
        for path, data in kind.files().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        self._target = folder / kind.target
        self._corpus = [self._target.read_bytes()]
        self._seen: set[str] = set()
        self._shapes = shapes_of(folder)
        kind.read(folder, self._shapes)

    def mutate(self, random: Random) -> bytes:
        """Put the next mutant in its place, and give its bytes."""
        data = self._corpus[0] if random.random() < 0.6 else random.choice(self._corpus)
        mutated = None
        if random.random() < 0.85:
            mutated = self._mutate_document(data, random)
        if mutated is None:
            mutated = mutate_bytes(data, random.choice(self._corpus), random)
        self._target.write_bytes(mutated)
        return mutated

    def judge(self, mutated: bytes) -> str:
        """Walk the mutant that is in place: its error's code, or :data:`PASSED`."""
        sentence, code = "", PASSED
        try:
            self._kind.read(self.folder, self._shapes)
        except TabwrightError as error:
            code, sentence = error.code, str(error)
            assert sentence.isprintable(), "the sentence would drive the user's terminal"
            assert len(sentence) < 4096, "the sentence would fill the user's terminal"
        # Words alone: names and numbers differ from mutant to mutant.
        signature = code + re.sub(r"\S*[^\sa-z]\S*", "#", sentence.replace(str(self.folder), ""))
        if signature not in self._seen and len(self._corpus) < _MAX_CORPUS:
            self._seen.add(signature)
            if self._is_document(mutated):
                self._corpus.append(mutated)
        return code

    def _mutate_document(self, data: bytes, random: Random) -> bytes | None:
        document = self._kind.document
        for _ in range(4):
            with suppress(*_NO_DOCUMENT):
                return document.replace(data, write(mutate_json(document.read(data), random)))
        return None

    def _is_document(self, data: bytes) -> bool:
        """Whether it is worth mutating again: what no parser reads leads nowhere new."""
        if len(data) > 2 * len(self._corpus[0]):
            return False
        with suppress(*_NO_DOCUMENT):
            return self._kind.document.read(data) is not None
        return False


def work(plan: Plan, connection: Connection) -> None:
    """Attack until the plan is fulfilled, telling each outcome to ``connection``."""
    faulthandler.enable()
    warnings.simplefilter("error")
    signal.signal(signal.SIGPROF, _hung)
    attacks = [
        Attack(name, kind, plan.folder / str(number))
        for number, (name, kind) in enumerate(plan.kinds.items())
    ]
    _limit(resource.RLIMIT_AS, _address_space() + _ADDRESS_SPACE)
    start = peak = peak_memory()
    number = 0
    while plan.rounds is None or number < plan.rounds:
        for attack in (each for each in attacks if number % each.every == 0):
            random = Random(f"{plan.seed}/{attack.name}/{number}")  # noqa: S311 - no secret
            connection.send(Begun(attack.name, attack.folder))
            mutated = attack.mutate(random)
            finding = ""
            try:
                with _alarm():
                    code = attack.judge(mutated)
            except HungError:
                code, finding = "hung", f"took more than {MAX_SECONDS} s"
            except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
                code, finding = "raised", traceback.format_exc()
            if (now := peak_memory()) > max(peak, start + MAX_BYTES):
                code, finding = "memory", f"peak at {now - start >> 20} MiB above the start"
                peak = now
            connection.send(Ended(code, finding))
        number += 1
    connection.send(Done())
    connection.close()


def _hung(*_: object) -> None:
    raise HungError


@contextmanager
def _alarm() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(what: int, soft: int) -> None:
    resource.setrlimit(what, (soft, resource.getrlimit(what)[1]))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def peak_memory() -> int:
    """The most resident memory that this program has had, in bytes.

    The kernel's ru_maxrss would count what the process that started it had.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
