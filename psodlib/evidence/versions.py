"""Driver and VIB versions: grammar, normal form, order.

A VIB's version is ``<driver version>-<release><packaging>.<target ESXi>.<its GA build>``, as in
``5.5.0.58-1OEM.550.0.0.1331820``. The tail names the ESXi line that the driver was built for, never the host's build.

The Smart Array family (``hpsa``, ``hpvsa``, ``hpdsa``) moved its revision between fields: ``5.5.0-44vmw`` and
``5.5.0.58-1OEM`` are revisions 44 and 58 of one line. Its normal form puts the revision last: ``5.5.0.44``, ``5.5.0.58``.
Every other driver keeps what stands before the dash. Nothing here raises on text: what cannot be read is ``None``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

# The family whose revision stands in the release field of old packages.
REVISION_IN_RELEASE = frozenset({"hpsa", "hpvsa", "hpdsa"})

# VIB names that are neither the module's own name nor a prefix in front of it.
MODULE_OF_VIB = {
    "net-tg3": "tg3",
    "net-mlx4-core": "mlx4_core",
    "net-mlx4-en": "mlx4_en",
    "net-i40e": "i40e",
    "scsi-lpfc820": "lpfc820",
    "scsi-megaraid-sas": "megaraid_sas",
    "ntg3": "ntg3",
    "lsi-mr3": "lsi_mr3",
    "nvme-pcie": "nvme_pcie",
    "i40en-ens": "i40en_ens",
    "vmw-ahci": "vmw_ahci",
}
_BUS_PREFIXES = (
    "scsi-",
    "net-",
    "sata-",
    "ata-",
    "block-",
    "ima-",
    "char-",
    "misc-",
    "input-",
    "ipmi-",
    "net51-",
    "net55-",
)

_VERSION = re.compile(
    r"(?:Version\s+)?v?(?P<natural>\d[\w.+~]*?)(?:-(?P<release>[\w]+)(?P<target>(?:\.[\w]+)*))?(?:,.*)?", re.ASCII
)
_PACKAGING = re.compile(r"(?P<number>\d+)?(?P<brand>vmw|OEM|DELL|EMU|[A-Za-z]\w*)?", re.ASCII)
_LENGTH_LIMIT = 256


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One driver version, taken apart.

    ``normal`` is the normal form that two observations of one driver share; ``inbox`` is True for what came with ESXi,
    False for a vendor's package, None where the text does not say. Order and equality are those of ``normal``.
    """

    raw: str
    normal: str
    release: str | None = None  # `1OEM`, `44vmw`
    target: str | None = None  # ESXi line the package was built for, `550.0.0.1331820`
    inbox: bool | None = None

    def __eq__(self, other: object) -> bool:
        return _key(self.normal) == _key(other.normal) if isinstance(other, Version) else NotImplemented

    def __lt__(self, other: Version) -> bool:
        return _key(self.normal) < _key(other.normal)

    def __hash__(self) -> int:
        return hash(_key(self.normal))


def parse_version(text: str | None, module: str | None = None) -> Version | None:
    """Take a version string apart."""
    raw = (text or "").strip()
    match = _VERSION.fullmatch(raw) if len(raw) <= _LENGTH_LIMIT else None
    if not match:
        return None
    natural, release = match["natural"].rstrip("."), match["release"]
    packaging = _PACKAGING.fullmatch(release) if release else None
    number, brand = (packaging["number"], packaging["brand"]) if packaging else (None, None)
    if number and _family(module) and natural.count(".") < 3:
        natural = f"{natural}.{int(number)}"
    inbox = None if not number or not brand else brand.lower() == "vmw"
    return Version(
        raw=raw,
        normal=natural,
        release=release,
        target=match["target"].strip(".") or None if match["target"] else None,
        inbox=inbox,
    )


def normalise(version: str | None, module: str | None = None) -> str | None:
    """The normal form of a driver version: without packaging and target, the Smart Array revision last."""
    parsed = parse_version(version, module)
    return parsed.normal if parsed else None


def _family(module: str | None) -> bool:
    return bool(module) and module_of_vib(module or "") in REVISION_IN_RELEASE


def _key(normal: str) -> tuple[tuple[int, int, str], ...]:
    # Figures compare as numbers, letters as text and after figures; trailing zeros mean nothing.
    pieces = [
        (0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in re.findall(r"\d+|[^\W\d_]+", normal, re.ASCII)
    ]
    while pieces and pieces[-1] == (0, 0, ""):
        pieces.pop()
    return tuple(pieces)


def compare(a: str, b: str, module: str | None = None) -> int | None:
    """Which of two versions of one driver is newer."""
    one, other = parse_version(a, module), parse_version(b, module)
    if one is None or other is None:
        return None
    return (one > other) - (one < other)


def module_of_vib(name: str) -> str:
    """The module that a VIB installs, as far as its name says."""
    if name in MODULE_OF_VIB:
        return MODULE_OF_VIB[name]
    if name.startswith(("NVIDIA-", "NVD-")) and "Driver" in name:  # NVD-VMware_ESXi_8.0.0_Driver
        return "nvidia"
    for prefix in _BUS_PREFIXES:
        if name.startswith(prefix):
            name = name[len(prefix) :]
            break
    return name.replace("-", "_")
