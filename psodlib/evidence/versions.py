"""Driver and VIB versions: grammar, normal form, order.

A VIB's version is ``<driver version>-<release><packaging>.<target ESXi>.<its GA build>``, as in
``5.5.0.58-1OEM.550.0.0.1331820``. The tail names the ESXi line that the driver was built for, never the host's build.

The Smart Array family (``hpsa``, ``hpvsa``, ``hpdsa``) moved its revision between fields: ``5.5.0-44vmw`` and
``5.5.0.58-1OEM`` are revisions 44 and 58 of one line. Its normal form puts the revision last: ``5.5.0.44``, ``5.5.0.58``.
Every other driver keeps what stands before the dash. Nothing here raises on text: what cannot be read is ``None``.
"""

from __future__ import annotations

import re

# The family whose revision stands in the release field of old packages.
_REVISION_IN_RELEASE = frozenset({"hpsa", "hpvsa", "hpdsa"})

# Names of VIBs for which some tools take a driver's.
MODULE_OF_VIB = {
    "net-tg3": "tg3", "net-mlx4-core": "mlx4_core", "net-mlx4-en": "mlx4_en", "net-i40e": "i40e", "scsi-lpfc820": "lpfc820",
    "scsi-megaraid-sas": "megaraid_sas", "ntg3": "ntg3", "lsi-mr3": "lsi_mr3", "nvme-pcie": "nvme_pcie", "i40en-ens": "i40en_ens",
    "vmw-ahci": "vmw_ahci",
}  # fmt: skip
_BUS_PREFIX = re.compile(r"(?:scsi|net|sata|ata|block|ima|char|misc|input|ipmi|net51|net55)-")

_VERSION = re.compile(
    r"(?:Version\s+)?v?(?P<natural>\d[\w.+~]*?)(?:-(?P<release>[\w]+)(?P<target>(?:\.[\w]+)*))?(?:,.*)?", re.ASCII
)
_PACKAGING = re.compile(r"(?P<number>\d+)(?:vmw|OEM|DELL|EMU|[A-Za-z]\w*)?", re.ASCII)
_LENGTH_LIMIT = 256


def normalise(version: str | None, module: str | None = None) -> str | None:
    """The normal form of a driver version: without packaging and target, the Smart Array revision last."""
    raw = version.strip() if isinstance(version, str) else ""
    match = _VERSION.fullmatch(raw) if len(raw) <= _LENGTH_LIMIT else None
    if not match:
        return None
    natural = match["natural"].rstrip(".")
    packaging = _PACKAGING.fullmatch(match["release"] or "")
    if packaging and natural.count(".") < 3 and module_of_vib(module or "") in _REVISION_IN_RELEASE:
        natural = f"{natural}.{int(packaging['number'])}"
    return natural


def _key(normal: str) -> list[tuple[int, int, str]]:
    # Figures compare as numbers, letters as text and after figures; trailing zeros mean nothing.
    pieces = [
        (0, int(p), "") if p.isdigit() else (1, 0, p.lower()) for p in re.findall(r"\d+|[^\W\d_]+", normal, re.ASCII)
    ]
    while pieces and pieces[-1] == (0, 0, ""):
        pieces.pop()
    return pieces


def compare(a: str, b: str, module: str | None = None) -> int | None:
    """Which of two versions of one driver is newer: 1 for the first, -1 for the second, 0 for neither."""
    one, other = normalise(a, module), normalise(b, module)
    if one is None or other is None:
        return None
    return (_key(one) > _key(other)) - (_key(one) < _key(other))


def module_of_vib(name: str) -> str:
    """The module that a VIB installs, as far as its name says."""
    if name.startswith(("NVIDIA-", "NVD-")) and "Driver" in name:  # NVD-VMware_ESXi_8.0.0_Driver
        return "nvidia"
    prefix = _BUS_PREFIX.match(name)
    return name[prefix.end() if prefix else 0 :].replace("-", "_")
