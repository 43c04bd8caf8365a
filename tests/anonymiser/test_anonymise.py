"""Evidence written anew: nothing of the house left in it, and psodlib reads the same of it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import DATA, here

import psodlib as psod
from psodlib.anonymiser import Anonymised, Names, Pseudonyms, Rewriter, anonymise, key_from_passphrase, read_key
from psodlib.anonymiser.shapes import POSITIONS, SHAPES
from psodlib.errors import InputError

KEY = b"0123456789abcdef0123456789abcdef"
CRASH = (DATA / "incident-2014-05-31/incident-host/var/core/vmkernel-log.1").read_text()
# Hosts that are words of the kernel, one letter, another's beginning, all in capitals, full and short.
HOSTS = [
    "vmkernel",
    "esx",
    "panic",
    "a",
    "web",
    "web01",
    "web01-old",
    "ESX07",
    "node.corp.acme",
    "10.11.12.13",
    "fe80::aa:1",
]
# What must not be found anywhere, read as a word of its own, small letters.
SECRETS = [
    "web", "web01", "web01-old", "esx07", "node.corp.acme", "corp.acme", "acme", "10.11.12.13", "192.168.77.5", "jdoe", "gold_1",
    "xen mail 1", "xen+mail+1", "db(1)+x[2]", "00:17:a4:77:00:10", "564d1a2b-3c4d-5e6f-7a8b-9c0d1e2f3a4b", "600508b1001c2f3a7d1e0b9c4f5a6d7e",
    "50:01:43:80:12:34:56:78", "cz6f1c14cf", "fe80::aa:1", "fe80:0:0:0:0:0:aa:1", "2001:db8:1::5", "j.doe@mail.acme", "bern", "müller-vm",
]  # fmt: skip


def log_of(host: str) -> str:
    """A log with a name in every place and form; versions and kernel words that must stay."""
    return "".join(
        f"2014-05-0{day}T10:00:{second:02d}.000Z cpu{day}:{4000 + second}){text}\n"
        for day in range(1, 5)
        for second, text in enumerate([
            "World: 8773: vmm0:xen mail 1: vmm group 42846639",
            "Net: 2312: connected db(1)+x[2] eth0 to VM Network, portID 0x2000030",
            f"Hostd: host {host} at 192.168.77.5 and fe80:0:0:0:0:0:aa:1 (2001:db8:1::5), mail j.doe@mail.acme",
            "FS: /vmfs/volumes/gold_1/xen mail 1/xen mail 1.vmx on naa.600508b1001c2f3a7d1e0b9c4f5a6d7e, 50:01:43:80:12:34:56:78",
            "User jdoe@10.11.12.13 logged in; mac 00:17:A4:77:00:10; uuid 564d1a2b-3c4d-5e6f-7a8b-9c0d1e2f3a4b; serial CZ6F1C14CF",
            'Http: GET https://node.corp.acme/folder/xen%20mail%201/?dsName=gold%5f1&h=w%65b01 and {"h": "\\u0077eb01", "p": "\\/web01\\/x"} müller-vm',
            "World: 8774: vmm0:müller-vm: vmm group 1",
            "Bernhof: web01 web web01-old WEB01 node.corp.acme NODE.CORP.ACME (web01), web01_vmkernel, in the vmkernel a panic on esx is no name",
            "<6>hpsa: HP HPSA Driver (v 5.5.0.58-1OEM) version 5.5.0.58, hpsa 5.5.0.58 loaded",
        ])
    )  # fmt: skip


def evidence(root: Path) -> Path:
    """A folder of hosts with hostile names, in every form that evidence comes in."""
    for number, host in enumerate(HOSTS):
        place = root / host.replace(":", "_") if ":" in host else root / host
        (place / "var/log").mkdir(parents=True)
        (place / "commands").mkdir()
        (place / "var/log/vmkernel.log").write_text(log_of(host))
        (place / "var/log/vmkernel.0.gz").write_bytes(
            gzip.compress(log_of(host).replace("2014-05", "2014-04").encode())
        )
        (place / "commands/uname_-a.txt").write_text(
            f"VMkernel {host} 5.5.0 #1 SMP Release build-1331820 Sep 18 2013 23:08:31 x86_64 GNU/Linux\n"
        )
        (place / "commands/hostname.txt").write_text(
            f"   Domain Name: corp.acme\n   Fully Qualified Domain Name: {host.split('.')[0]}.corp.acme\n   Host Name: {host}\n"
        )
        (place / "commands/localcli_hardware-platform-get.txt").write_text(
            "Platform Information\n   Product Name: ProLiant\n   Vendor Name: HP\n   Serial Number: CZ6F1C14CF\n"
        )
        crash = CRASH.replace("2014-05-31T15:57", f"2014-05-31T15:{number + 10}").replace(
            "29:20:14:10.166", f"29:20:{number + 10}:10.166"
        )
        (place / "var/core").mkdir()
        (place / "var/core/vmkernel-log.1").write_text(crash)
    text = log_of("web01").encode()
    cut = text.index(b"web01") + 3  # in the middle of a name
    (root / "web01/var/log/hostd.log.FRAG-00000").write_bytes(text[:cut])
    (root / "web01/var/log/hostd.log.FRAG-00001").write_bytes(text[cut:])
    (root / "web01/var/log/shell.log").write_bytes(("\ufeff" + log_of("web01")).encode("utf-16-le"))
    (root / "web01/var/core/picture.png").write_bytes(b"\x89PNG\r\n" + b"web01" * 50)
    (root / "web01/var/log/web01-vobd.bz2").write_bytes(bz2.compress(text))
    (root / "web01/index.html").write_text("<p>web01</p><img src='data:image/png;base64," + "QUJD" * 20000 + "'> web01")
    bundle = io.BytesIO()
    with tarfile.open(fileobj=bundle, mode="w:gz") as tar:
        top = "esx-esx-2014-06-01--10.00-123"
        members = {f"{top}/var/log/vmkernel.log": text, f"{top}/commands/uname_-a.txt": b"VMkernel esx 5.5.0 #1 SMP Release build-1331820\n",
                   f"{top}/var/log/web01.log.FRAG-00001": text[cut:], f"{top}/var/log/web01.log.FRAG-00000": text[:cut]}  # fmt: skip
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(data), 1401616800, "jdoe"
            tar.addfile(info, io.BytesIO(data))
    with zipfile.ZipFile(root / "VMware-vCenter-support-2014-06-01@10-00-00.zip", "w") as archive:
        archive.writestr("panic-vm2014-6-01@10-00-00.tgz", bundle.getvalue().replace(b"jdoe", b"jdoe"))
    rows = "\n".join(f"{host},Bern 1,{number},Bern,CZ6F1C14CF" for number, host in enumerate(HOSTS))
    (root.parent / "hosts.csv").write_text(f"host,cluster,users,town,serial\n{rows}\n")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Anonymised]:
    folder = tmp_path_factory.mktemp("anonymise")
    source = evidence(folder / "evidence")
    done = anonymise(source, out=folder / "out", key=KEY, inventory=folder / "hosts.csv", words=["Bern"])
    return source, folder / "hosts.csv", done


def everything(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Every name and every text in a file, whatever it is packed in."""
    if data.startswith(b"\x1f\x8b"):
        yield from everything(gzip.decompress(data), name)
    elif data.startswith(b"BZh"):
        yield from everything(bz2.decompress(data), name)
    elif data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                yield from everything(archive.read(info), f"{name}!{info.filename}")
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            fragments: dict[str, list[tuple[str, bytes]]] = {}
            for member in tar:
                content = tar.extractfile(member).read()  # type: ignore[union-attr]
                base, mark, number = member.name.partition(".FRAG-")
                if mark:
                    fragments.setdefault(base, []).append((number, content))
                assert member.uname == "" and member.gname == ""
                yield from everything(content, f"{name}!{member.name}")
            for base, pieces in fragments.items():
                yield base, b"".join(content for _, content in sorted(pieces))
    else:
        yield name, data


def text_of(data: bytes) -> str:
    text = data.decode("utf-16") if data.startswith(b"\xff\xfe") else data.decode("utf-8", "replace")
    unquoted = re.sub(r"%([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), text)
    return "\n".join(
        [text, unquoted, re.sub(r"\\u([0-9a-f]{4})", lambda m: chr(int(m[1], 16)), text).replace("\\/", "/")]
    ).lower()


def test_no_original_is_left_in_any_text_or_name(made):
    _, _, done = made
    texts = {
        name: text_of(data)
        for file in done.folder.rglob("*")
        if file.is_file()
        for name, data in everything(file.read_bytes(), file.relative_to(done.folder).as_posix())
    }
    assert len(texts) > 70
    joined = text_of(
        (done.folder / sorted(n for n in texts if n.endswith("FRAG-00000") and "!" not in n)[0]).read_bytes()
    )
    for secret in SECRETS:
        word = re.compile(rf"(?<![0-9a-z]){re.escape(secret)}(?![0-9a-z])")
        for name, text in texts.items():
            assert not word.search(text), (
                secret,
                name,
                word.search(text) and text[max(0, word.search(text).start() - 80) : word.search(text).end() + 40],
            )
            assert not word.search(name.lower()), (secret, name)
    assert "bern" not in "\n".join(texts.values()) and joined


def test_a_host_called_as_a_word_of_the_kernel_is_replaced_in_its_places_only(made):
    _, _, done = made
    mapping = json.loads(done.mapping.read_text())["names"]["host"]
    folders = {place.name for place in done.folder.iterdir()}
    assert not folders & {host.lower() for host in HOSTS} and not folders & set(HOSTS)
    assert {mapping[host] for host in ("vmkernel", "esx", "panic", "a")} <= folders
    log = (done.folder / mapping["a"] / "var/log/vmkernel.log").read_text()
    assert "in the vmkernel a panic on esx is no name" in log
    assert (
        (done.folder / mapping["panic"] / "commands/uname_-a.txt")
        .read_text()
        .startswith(f"VMkernel {mapping['panic']} 5.5.0 #1")
    )
    assert "5.5.0.58-1OEM" in log and "version 5.5.0.58, hpsa 5.5.0.58 loaded" in log


def test_the_results_are_those_of_the_original_but_for_the_names(made):
    source, inventory, done = made
    original = psod.load(source, inventory=inventory)
    # as the original's, it lies beside the evidence
    beside = (done.folder / "inventory.csv").rename(done.folder.with_name("inventory.csv"))
    other = psod.load(done.folder, inventory=beside)
    beside.rename(done.folder / "inventory.csv")
    assert len(original.crashes) == len(HOSTS)
    # a picture is named as unused, and left out of what is written
    told = original.problems
    original = replace(original, problems=told[~told["source"].str.endswith(".png")].reset_index(drop=True))
    same_but_for_names(original, other, json.loads(done.mapping.read_text())["names"])


def same_but_for_names(original: psod.Fleet, other: psod.Fleet, names: dict[str, dict[str, str]]) -> None:
    """Every table of both, with the host's name replaced by the mapping and the cells that hold names or places left out."""
    hosts = {
        name.lower(): new.lower() for kind in ("host", "ipv4", "ipv6") for name, new in names.get(kind, {}).items()
    }
    free = {"source", "detail", "sha256", "offset", "message", "cluster", "town", "serial"}
    for name, table in original.tables.items():
        mapped = table.assign(host=table["host"].str.lower().map(hosts)) if "host" in table else table
        columns = [column for column in table if column not in free]
        left, right = (
            one[columns].astype("string").fillna("NA").sort_values(columns, ignore_index=True)
            for one in (
                mapped,
                getattr(other, name).assign(host=lambda t: t["host"].str.lower())
                if "host" in table
                else getattr(other, name),
            )
        )
        pd.testing.assert_frame_equal(left, right, obj=name)


def test_the_demo_fleet_reads_alike(tmp_path):
    for host in ("esx001", "esx029", "esx002"):  # a bundle with fragments, a folder, a bundle with a log that is cut
        (tmp_path / "fleet").mkdir(exist_ok=True)
        (tmp_path / "fleet" / host).symlink_to(DATA / "demo-fleet" / host)
    import shutil

    shutil.copytree(tmp_path / "fleet", tmp_path / "copy", symlinks=False)
    done = anonymise(tmp_path / "copy", out=tmp_path / "out", key=KEY)
    assert not [one for one in done.suspects if "esx001" in one.source]
    original, other = psod.load(tmp_path / "copy"), psod.load(done.folder)
    # the second counts what a bundle holds for nothing
    assert set(other.problems["problem"]) == {"truncated", "unused"}
    same_but_for_names(original, other, json.loads(done.mapping.read_text())["names"])
    assert set(original.crashes["crash_id"]) == set(other.crashes["crash_id"])


def test_what_cannot_be_judged_is_left_out_and_listed(made):
    _, _, done = made
    told = dict(done.left_out)
    assert any(place.endswith("picture.png") for place in told)
    assert any(place.endswith("index.html") and "picture" in why for place, why in told.items())
    assert not list(done.folder.rglob("*.png"))
    page = next(done.folder.rglob("index.html")).read_text()
    assert "QUJDQUJD" not in page and page.count("<p>h") == 1


def test_the_mapping_is_the_owners_alone_and_not_in_the_output(made):
    _, _, done = made
    assert stat.S_IMODE(done.mapping.stat().st_mode) == 0o600
    assert done.folder not in done.mapping.parents
    assert json.loads(done.mapping.read_text())["names"]["host"]["web01"].startswith("h")


def test_one_key_agrees_with_itself_and_no_other(tmp_path):
    (tmp_path / "one/web01").mkdir(parents=True)
    (tmp_path / "one/web01/vmkernel.log").write_text(log_of("web01"))
    first, again, other = (
        anonymise(tmp_path / "one", out=tmp_path / name, key=key)
        for name, key in (("a", KEY), ("b", KEY), ("c", KEY[::-1]))
    )
    texts = [next(done.folder.rglob("vmkernel.log")).read_bytes() for done in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_no_two_ipv4_addresses_share_a_pseudonym_however_they_are_spelled():
    # Of 40,000 first choices out of 15 * 2 ** 24 some three agree; with this key some must, or the test tests nothing.
    addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(40_000)]
    alone = [Pseudonyms(KEY).of("ipv4", address) for address in addresses]
    assert len(set(alone)) < len(addresses)
    together = Pseudonyms(KEY)
    made = [together.of("ipv4", address) for address in addresses]
    assert len(set(made)) == len(addresses)
    assert sum(one != other for one, other in zip(alone, made, strict=True)) == len(addresses) - len(set(alone))
    assert [together.of("host", address) for address in addresses[:999]] == made[:999]
    assert together.of("ipv4", "010.000.000.001") == made[1]


def test_a_saved_fleet_is_replaced_cell_by_cell(made, tmp_path):
    source, inventory, _ = made
    psod.load(source, inventory=inventory).save(tmp_path / "store")
    done = anonymise(tmp_path / "store", out=tmp_path / "out", key=KEY, words=["Bern"])
    assert not done.left_out
    before, after = psod.Fleet.open(tmp_path / "store"), psod.Fleet.open(done.folder)
    same_but_for_names(before, after, json.loads(done.mapping.read_text())["names"])
    shown = " ".join(table.astype("string").to_csv() for table in after.tables.values()).lower()
    for secret in ("web01", "corp.acme", "bern", "cz6f1c14cf", "10.11.12.13"):
        found = re.search(rf"(?<![0-9a-z]){re.escape(secret)}(?![0-9a-z])", shown)
        assert not found, shown[found.start() - 90 : found.end() + 40]
    assert not set(after.hosts["host"]) & set(HOSTS)


def test_a_store_becomes_a_saved_fleet_without_its_names(made, tmp_path):
    source, inventory, _ = made
    before = psod.load(source, inventory=inventory, store=tmp_path / "store")
    done = anonymise(tmp_path / "store", out=tmp_path / "out", key=KEY, words=["Bern"])
    assert not done.left_out and not any(one.source.startswith("/") for one in done.suspects)
    same_but_for_names(before, psod.load(done.folder), json.loads(done.mapping.read_text())["names"])


def test_a_name_that_only_looks_escaped_is_written_once():
    names = Names()
    names.add("host", "web01.corp.acme")
    text = Rewriter(names, Pseudonyms(KEY)).text
    assert text("GET /x%20y?a=1&web01; done") == f"GET /x%20y?a=1&{text('web01')}; done"
    assert text("a%2fweb01&amp;b") == f"a%2f{text('web01')}&amp;b"


@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.found[-1] + position.sample[:12])
def test_each_place_finds_the_names_of_its_own_sample(position):
    low = position.sample.encode() if position.cased else position.sample.lower().encode()
    found = [value.decode() for match in position.pattern.finditer(low) for value in match.groups() if value]
    assert any(sign in position.sample.lower().encode() for sign in position.signs)
    assert [name.lower() for name in position.found] == [name.lower() for name in sorted(found, key=low.decode().index)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.kind} {shape.sample[:12]}")
def test_each_shape_is_its_own_samples_and_no_earlier_ones(shape):
    assert re.fullmatch(shape.pattern, shape.sample.lower())
    earlier = SHAPES[: SHAPES.index(shape)]
    assert not [other for other in earlier if re.fullmatch(other.pattern, shape.sample.lower())]


def test_keys(tmp_path):
    made_key = read_key(tmp_path / "key")
    assert len(made_key) == 64 and stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert read_key(tmp_path / "key") == made_key
    (tmp_path / "short").write_bytes(b"abc")
    with pytest.raises(InputError, match="3 bytes; expected"):
        read_key(tmp_path / "short")
    with pytest.raises(InputError, match="passphrase"):
        key_from_passphrase("short")
    assert key_from_passphrase("correct horse battery") == key_from_passphrase("correct horse battery")


def test_misuse_is_told(tmp_path):
    (tmp_path / "e/h").mkdir(parents=True)
    (tmp_path / "e/h/vmkernel.log").write_text(log_of("h"))
    with pytest.raises(InputError, match="lies inside"):
        anonymise(tmp_path / "e", out=tmp_path / "e/out", key=KEY)
    with pytest.raises(InputError, match="not empty"):
        anonymise(tmp_path / "e", out=tmp_path, key=KEY)
    with pytest.raises(InputError, match="a word of the kernel's own"):
        anonymise(tmp_path / "e", out=tmp_path / "o", key=KEY, words=["vmkernel"])
    with pytest.raises(InputError, match="a key of 3 bytes"):
        anonymise(tmp_path / "e", out=tmp_path / "o", key=b"abc")


def test_what_is_told_of_one_file_is_said_of_one(tmp_path: Path) -> None:
    # An advisory's number, which our own known issues quote, is nobody's name.
    (tmp_path / "esx01").mkdir()
    words = "2014-05-01T00:00:00.000Z cpu1:2)x: see c04302261, and ask bernesx09\n"
    (tmp_path / "esx01/vmkernel.log").write_text(words)
    (tmp_path / "key").write_bytes(KEY)
    told = here("anonymise", tmp_path / "esx01", "-o", tmp_path / "out", "--key-file", tmp_path / "key")
    assert "1 file in " in told.stdout and "1 word in it " in told.stdout and "number, once)" in told.stdout, told
    assert "bernesx09" in told.stdout and "c04302261" not in told.stdout and told.returncode == 1
