"""What evidence says, before it is a table: plain frozen values that pickle, and that msgspec writes.

``evidence/`` makes them, ``triage/`` reasons over them, ``fleet.py`` turns them into the tables of ``schema.py``.
Unknown is always ``None``. Times are aware UTC ``datetime``; addresses are ``int``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

# The words of `damage`, of which a crash may have several: joined by `;`, in this order.
DAMAGE = (
    "no_header", "no_frames", "cut_head", "cut_backtrace", "cut_line", "masked", "joined_lines", "garbled", "no_time",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One line of a backtrace; fields as the columns of ``frames``."""

    crash_id: str | None = None
    backtrace: int = 0  # 0 = the panicking PCPU, 1.. = saved backtraces of others
    pcpu: int | None = None
    index: int = 0  # 0 = innermost
    frame_pointer: int | None = None
    address: int | None = None
    function: str | None = None
    module: str | None = None  # bare: `i40en`, never `(i40en)`
    module_version: str | None = None  # as printed behind `#`; `nover` stays `nover`, `<None>` is None
    offset: int | None = None  # bytes into the function
    stack: int | None = None  # first stack word
    module_evidence: str | None = None  # printed, module_map, symbol_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of a dump's module map or a loaded-module list; fields as the columns of ``modules``."""

    host: str | None = None
    time: datetime | None = None
    crash_id: str | None = None
    module: str
    base: int | None = None
    data: int | None = None
    bss: int | None = None
    module_id: int | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a crash was judged as it was; fields as the columns of ``reasons``."""

    about: str  # signature, suspect, doubt, known_issue
    text: str
    module: str | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """One PSOD as its text tells it; fields as the columns of ``crashes``, plus ``frames``, ``modules``, ``text``.

    ``parse_crashes`` fills what text alone can give. ``load`` adds what other evidence knows: host, driver version, known
    issues, where the text stood.
    """

    crash_id: str | None = None
    host: str | None = None
    time: datetime | None = None
    esxi_version: str | None = None
    esxi_build: str | None = None
    kind: str = "other"
    message: str | None = None
    exception: int | None = None
    pcpu: int | None = None
    world_id: int | None = None
    world_name: str | None = None
    ip: int | None = None
    fault_address: int | None = None
    code_start: int | None = None
    uptime: timedelta | None = None
    guilty_module: str | None = None
    guilty_function: str | None = None
    guilt: str = "none"
    driver_version: str | None = None
    driver_evidence: str | None = None
    signature: str | None = None
    proto_signature: str | None = None
    known_issues: str | None = None
    deliberate: bool = False
    damage: str = ""
    source: str | None = None
    line: int | None = None  # from 1, of the crash's first line in its file or text
    offset: int | None = None  # bytes into the file or text
    sha256: str | None = None  # of the crash's own text as bytes
    copies: int = 1
    frames: tuple[Frame, ...] = ()
    modules: tuple[Module, ...] = ()
    text: str = field(default="", repr=False)
    reasons: tuple[Reason, ...] = field(default=(), repr=False)  # empty until it is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The host ran from ``start`` to ``end`` without a break in the evidence."""

    start: datetime
    end: datetime
    boot: datetime | None = None  # when that run began, where the evidence counts uptime
    evidence: str = "vmkernel"  # heartbeat, vmkernel, uptime, vobd, hostd
    vms: int | None = None
    source: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One moment in a host's life: it booted, or something says how it stopped."""

    time: datetime
    what: str  # booted, rebooting, powering_off, halting, core_dump_found, power_button, poweroff_unexplained; a vCenter's own
    evidence: str = "vmksummary"
    text: str | None = None  # a vCenter's own words
    vm: str | None = None
    source: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverReading:
    """One observation of a driver's version; fields as the columns of ``drivers`` without ``host`` and ``boot``."""

    module: str
    version: str | None = None  # normal form, `versions.normalise`
    vib: str | None = None  # name or full ID as printed
    state: str = "installed"  # loaded, installed, pending, removed
    observed_at: datetime | None = None  # None in an output without a time: the loader gives it the collection's
    installed_on: datetime | None = None  # VIB table's day, where it has one
    evidence: str = (
        "vib_list"  # banner, proc, live_module, esxupdate, vib_install, rebooting_image, adapter_list, ethtool
    )
    device: str | None = None
    address: str | None = None  # the device's on the PCI bus, `0000:03:00.0`
    firmware: str | None = None
    source: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact:
    """What a file says of the host itself; every field may be None."""

    host: str | None = None
    esxi_version: str | None = None
    esxi_build: str | None = None
    vendor: str | None = None
    model: str | None = None
    serial: str | None = None
    time: datetime | None = None
    source: str | None = None
    columns: tuple[tuple[str, str | int], ...] = ()  # what a vCenter adds: cluster, datacenter, ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Precursor:
    """A line that may foretell a crash: heap at maximum, LinDMA, out of memory, device reset, lock-up."""

    time: datetime | None
    what: str  # a word of the table in ``evidence/vmkernel_lines.py``
    module: str | None = None  # the driver it speaks of, where it names one
    text: str = ""
    source: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A thing that could not be read or believed; fields as the columns of ``problems``."""

    source: str
    problem: str
    host: str | None = None
    line: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReading:
    """All that one file says: the unit of work, on one core or on a cluster."""

    source: str
    kind: str  # vmkernel, vmksummary, esxupdate, vib_list, ... ; "" when nothing was recognised
    host: str | None = None  # the file's own word for it
    hint: str | None = None  # what its place says: bundle name, folder
    sha256: str | None = None
    size: int = 0
    mtime: datetime | None = None  # the file's own stamp
    collected: datetime | None = None  # when it was taken off the host, by the bundle's name or a `date` beside it
    irrelevant: bool = False  # it is recognised and holds nothing for us
    crashes: tuple[Crash, ...] = ()
    alive: tuple[Alive, ...] = ()
    marks: tuple[Mark, ...] = ()
    drivers: tuple[DriverReading, ...] = ()
    modules: tuple[Module, ...] = ()
    facts: tuple[HostFact, ...] = ()
    precursors: tuple[Precursor, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def needs_host(self) -> bool:
        """Whether it tells something that is of use only where it is known of whom."""
        return not self.irrelevant and bool(self.crashes or self.alive or self.drivers or self.facts)
