"""What the collector would do, before it touches any host."""

from __future__ import annotations

import os
import pickle
import re
import stat
import threading
from pathlib import Path

import paramiko
import pytest

from psodlib.collector import (
    Limits,
    Target,
    ascertainment,
    ask_password,
    collect,
    password_from_command,
    password_from_keyring,
    plan_table,
    read_hosts,
)
from psodlib.collector.folder import Folder, Manifest, Record
from psodlib.collector.login import _PASSWORD_PROMPT, Gate, HostKeys, Secret, _Refused, printable, way_in
from psodlib.collector.plan import COMMANDS, DUMPS, EXTRACTORS, LOGS, output_name
from psodlib.errors import CollectError, InputError


def test_plan_names_every_entry_its_purpose_and_cost() -> None:
    plan = plan_table("hpsa")
    assert list(plan.columns) == ["what", "why", "cost"]
    assert len(plan) == len(COMMANDS) + len(LOGS) + 1
    assert plan.notna().all().all() and (plan != "").all().all()
    assert not plan["what"].str.contains(r"\{module\}", regex=True).any()


def test_plan_never_consumes_a_dump_nor_writes_outside_its_own_folder() -> None:
    lines = [line for command in COMMANDS for line in command.lines] + list(EXTRACTORS)
    assert not any(" -n" in f"{line} " for line in lines)
    assert not any(re.search(r">|\b(?:rm|vm-support|set|install|update|remove)\b| -C", line) for line in lines)


@pytest.mark.parametrize(
    ("command", "name"),
    [("date", "date.txt"), ("uname -a", "uname_-a.txt"), ("localcli software vib list", "localcli_software-vib-list.txt"),
     ("localcli software vib get --rebooting-image", "localcli_software-vib-get---rebooting-image.txt"),
     ("cat /proc/scsi/hpsa/2", "cat_procscsihpsa2.txt"), ("vmkload_mod -v10 -l", "vmkload_mod_-v10--l.txt")],
)  # fmt: skip
def test_outputs_are_named_as_vm_support_names_them(command: str, name: str) -> None:
    assert output_name(command) == name


def test_no_two_remote_names_share_a_local_one(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a")
    remote = [f"/var/core/{name}" for name in ("a b", "a_b", "a?b", "A_b", "./a_b", "a_b.part", "a_B")]
    local = [folder.local(name).lower() for name in remote]
    assert len(set(local)) == len(remote) and local[1] == "var/core/a_b"
    assert not any(name.endswith(".part") for name in local)


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "{}", "\x00", "\xff", "[" * 5000, '{"files": 3}', '{"host": "a", "port": "22"}', '{"host": "a", "why": 3}',
     '{"host": "a", "clock_offset": "x"}', '{"host": "a", "bytes": null}', '{"host": "x", "files": [{"odd": 1}]}',
     '{"host": "a", "files": [{"path": 1, "local": null}]}', '{"host": "a", "files": [{"path": "/x", "local": null, "state": "fine"}]}'],
)  # fmt: skip
def test_a_manifest_of_other_types_is_none(tmp_path: Path, damage: str) -> None:
    folder = Folder(tmp_path, "a")
    folder.save(Manifest("a", files=[Record("/x", "x", 3, state="whole")], clock_offset=2))
    assert folder.manifest() is not None
    (folder.path / "manifest.json").write_bytes(damage.encode("latin-1"))
    assert folder.manifest() is None
    assert ascertainment(tmp_path).empty


@pytest.mark.parametrize(
    "name",
    ["vmkernel.\u0663.gz", "vmkernel-log.\u00e9", "../x", "vmkernel.log/../../x", "vmkernel.log\n", "vmkernel.log;id", "vmkernel.'.gz",
     "\x1b[2Jvmkernel.log", "vmkernel.log.part", ""],
)  # fmt: skip
def test_hostile_names_match_no_pattern_of_the_plan(name: str) -> None:
    assert not any(group.name.fullmatch(name) for group in (*LOGS, DUMPS))


@pytest.mark.parametrize(
    "name",
    ["vmkernel.log", "vmkernel.0.gz", "vmkernel.12.gz", "vmksummary.log", "vmkernel-log.1", "vmkernel-log-FILE.2"],
)
def test_honest_names_match(name: str) -> None:
    assert any(group.name.fullmatch(name) for group in LOGS)


def test_hosts_from_names_file_and_inventory(tmp_path: Path) -> None:
    named = [(t.name, t.user, t.port) for t in read_hosts(["esx1", "admin@esx2:2222"])]
    assert named == [("esx1", None, 22), ("esx2", "admin", 2222)]
    (tmp_path / "hosts.txt").write_text("# the rack\nesx1\n\nesx2  # old\n")
    assert [t.name for t in read_hosts(tmp_path / "hosts.txt", legacy=["esx2"]) if t.legacy] == ["esx2"]
    rows = "esx1,A,root,2222,10.0.0.1,me@gate:23,yes\nesx2,A,,,,,\n"
    (tmp_path / "hosts.csv").write_text(f"Name,Cluster,User,Port,Address,Jump Host,Legacy\n{rows}")
    gate = Target(name="gate", address="gate", port=23, user="me")
    first = Target(name="esx1", address="10.0.0.1", port=2222, user="root", legacy=True, jump=gate)
    assert read_hosts(tmp_path / "hosts.csv") == [first, Target(name="esx2", address="esx2")]
    assert first.key_name == "[10.0.0.1]:2222" and gate.key_name == "[gate]:23"


@pytest.mark.parametrize(
    "header",
    [
        "Host,Datacenter,Cluster,SSH Port,User,IP Address",  # RVTools
        "VM Host;Datacenter;Cluster;SSH Port;SSH User;Management IP",
        '"Name","State","Cluster","Port","User name","Address"',  # vCenter
        "ESXi Host\tx\tCluster Name\tssh-port\tAccount\tManagement IP Address",
    ],
)
def test_an_exported_inventory_is_read_with_the_headers_it_has(tmp_path: Path, header: str) -> None:
    by = next(mark for mark in ";\t," if mark in header)
    rows = [("esx1.lan", "DC", "A", "2222", "DOM\\svc", "10.0.0.1"), ("esx2.lan", "DC", "A", "", "", "fe80::2")]
    (tmp_path / "export.csv").write_text("\n".join([header, *(by.join(row) for row in rows)]), "utf-16")
    first, second = read_hosts(tmp_path / "export.csv")
    assert (first.name, first.port, first.user, first.address) == ("esx1.lan", 2222, "DOM\\svc", "10.0.0.1")
    assert (second.name, second.port, second.user, second.address) == ("esx2.lan", 22, None, "fe80::2")


def test_a_host_with_several_rows_is_visited_once_and_named(tmp_path: Path) -> None:
    (tmp_path / "vms.csv").write_text("VM,Host,SSH Port\na,esx1,23\nb,ESX1,24\nc,esx2,\n")
    with pytest.warns(UserWarning, match="several rows each for ESX1; the first counts"):
        hosts = read_hosts(tmp_path / "vms.csv")
    assert [(host.name, host.port) for host in hosts] == [("esx1", 23), ("esx2", 22)]


@pytest.mark.parametrize(
    ("row", "said"),
    [("esx1,²,root", "no port"), ("esx1,0,root", "no port"), ("esx1,22,ro\x1b[2Jot", "no user"), ("$(id),22,root", "cannot name a host"),
     ("esx1,22,a;b", "no user"), ("büro,22,root", "cannot name a host")],
)  # fmt: skip
def test_a_bad_row_is_named(tmp_path: Path, row: str, said: str) -> None:
    (tmp_path / "hosts.csv").write_text(f"host,port,user\n{row}\n")
    with pytest.raises(InputError, match=said) as caught:
        read_hosts(tmp_path / "hosts.csv")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["missing.csv", "hosts.txt", "a-folder", "export.XLSX", "/no/such.file"])
def test_a_file_that_is_not_there_is_no_host(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-folder").mkdir()
    with pytest.raises(InputError, match="is no file"):
        read_hosts(name)


@pytest.mark.parametrize(
    "limit", [{"connect": float("nan")}, {"login": -1}, {"total": 0}, {"bytes": -5}, {"idle": float("inf")}]
)
def test_limits_are_above_nothing(limit: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a number above 0"):
        Limits(**limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", ["", "# mine\n", "old ssh-ed25519 AAAA", "old ssh-ed25519 AAAA\n"])
def test_a_trusted_key_gets_a_line_of_its_own(tmp_path: Path, content: str) -> None:
    path, key = tmp_path / "new/known", paramiko.ECDSAKey.generate()
    if content:
        path.parent.mkdir()
        path.write_text(content)
    HostKeys(path, trust_first_use=True).check(Target(name="esx1", address="10.0.0.1"), key)
    lines = path.read_text().splitlines()
    assert lines == [*content.splitlines(), f"10.0.0.1 {key.get_name()} {key.get_base64()}"]
    assert HostKeys(path).types("10.0.0.1") == [key.get_name()]


def test_a_key_that_cannot_be_written_down_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    keys = HostKeys(tmp_path / "file/known", trust_first_use=True)
    for _ in range(2):
        with pytest.raises(CollectError, match=r"cannot be written to .*nothing was sent"):
            keys.check(Target(name="esx1", address="10.0.0.1"), paramiko.ECDSAKey.generate())
    assert keys.trusted == []


def test_an_output_that_is_no_folder_is_told_before_any_visit(tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "private"))
    for out in ("key", "key/below"):
        with pytest.raises(InputError, match="expected a folder"):
            collect(["esx1"], tmp_path / out, key=tmp_path / "private")


def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    paramiko.ECDSAKey.generate().write_private_key_file(str(tmp_path / "key"))
    host = Target(name="esx1", address="127.0.0.1", port=1)
    (tmp_path / "out").mkdir()
    other = os.open(tmp_path / "out", os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is collecting"):
            collect([host], tmp_path / "out", key=tmp_path / "key")
        assert list((tmp_path / "out").iterdir()) == []
    finally:
        os.close(other)
    assert collect([host], tmp_path / "out", key=tmp_path / "key").hosts.why.str.contains("SSH is off").all()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["esx1"]


def test_two_hosts_never_share_a_folder() -> None:
    with pytest.raises(InputError, match="stands twice"):
        read_hosts(["[fe80::1]", "fe80__1"])
    assert [host.address for host in read_hosts(["root@[fe80::1]:2222", "esx1", "ESX1"])] == ["fe80::1", "esx1"]
    with pytest.raises(InputError, match=r"an IPv6 address in \[ \]"):
        read_hosts(["fe80::1"])


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "-oProxyCommand=x", "esx 1", "truth", "esx\n1", "esx;id", "esx:99999", "$(id)"]
)
def test_what_cannot_name_a_host_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        read_hosts([name])


def test_wrong_use_is_found_before_any_host_is_visited(tmp_path: Path) -> None:
    both: dict[str, object] = {"agent": True, "password": ask_password()}
    for options in ({"pool": 0}, {"pool": 33}, {"module": "hpsa;id"}, {"legacy": ["other"]}, {}, both):
        with pytest.raises(InputError):
            collect(["esx1"], tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="never the password itself") as caught:
        collect(["esx1"], tmp_path / "out", password="hunter2-hunter2")  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret("hunter2")
    for text in (repr(secret), str(secret), f"{secret}", repr([secret]), repr({"root": secret})):
        assert "hunter2" not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_password_from_a_command_tells_nothing_of_its_output() -> None:
    assert password_from_command(["echo", "pw-of-{user}"])("root") == "pw-of-root"
    with pytest.raises(InputError) as caught:
        password_from_command(["sh", "-c", "echo hunter2; exit 3"])("root")
    assert "hunter2" not in str(caught.value) and "3" in str(caught.value)
    with pytest.raises(InputError):
        password_from_command("echo x")


def test_no_keyring_is_a_plain_message() -> None:
    with pytest.raises(InputError, match="keyring"):
        password_from_keyring()("root")


@pytest.mark.parametrize(
    ("prompt", "answered"),
    [("Password:", True), ("Password for root@esx01:", True), ("(root@10.0.0.1) Password:", True), ("New password:", False),
     ("Current password:", False), ("(current) UNIX password:", False), ("One-time password:", False), ("Passcode:", False), ("Code:", False)],
)  # fmt: skip
def test_only_a_password_prompt_is_answered(prompt: str, answered: bool) -> None:
    assert bool(_PASSWORD_PROMPT.fullmatch(prompt)) == answered


def test_gate_lets_three_wrong_logins_through_however_many_wait() -> None:
    gate, tried, lock = Gate(), [], threading.Lock()

    def log_in(number: int) -> None:
        try:
            with gate.attempt(f"h{number}"):
                with lock:
                    tried.append(number)
                raise _Refused(f"h{number}", "no")
        except CollectError:
            pass

    threads = [threading.Thread(target=log_in, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(tried) == 3 and gate.shut


def test_gate_starts_counting_anew_after_a_success() -> None:
    gate = Gate()
    for works in (False, False, True, False, False):
        try:
            with gate.attempt("h"):
                if not works:
                    raise _Refused("h", "no")
        except CollectError:
            pass
    assert not gate.shut


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;title\x07", "a\nb\rc", "\u202egnp", "\ud800", "\x9b31m"])
def test_printable_leaves_nothing_that_moves_a_cursor(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


def test_local_names_stay_in_the_hosts_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "fe80::1")
    assert folder.path == tmp_path / "fe80__1"
    for remote in ("/var/run/log/vmkernel.log", "/../../etc/passwd", "//a/./..//b", "/x\ny"):
        assert (folder.path / folder.local(remote)).resolve().is_relative_to(folder.path.resolve())


def test_files_are_private_and_links_are_not_followed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "esx1")
    with folder.open("a/b", "wb") as file:
        file.write(b"x")
    assert stat.S_IMODE(os.stat(folder.path / "a/b").st_mode) == 0o600
    (folder.path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError):
        folder.open("link", "wb")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("local", ["../../victim", "/etc/passwd", "a/../../x", "", "a//b", "x\x1b[2J"])
def test_a_manifest_that_leads_elsewhere_is_as_good_as_none(tmp_path: Path, local: str) -> None:
    folder = Folder(tmp_path, "esx1")
    files = [Record("/log", "log", 1, 2, "ab", "whole"), Record("/old", local, 1, 2, "ab", "earlier")]
    folder.save(Manifest("esx1", files=files))
    assert folder.manifest() is None


def test_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "esx1")
    manifest = Manifest("esx1", why="\x1b[2J ü", files=[Record("/var/log/x", "var/log/x", 3, 4, "ab", "whole")])
    folder.save(manifest)
    assert folder.manifest() == manifest
    assert (folder.path / "manifest.json").read_bytes().isascii()
    assert b"\x1b" not in (folder.path / "manifest.json").read_bytes()


def test_bytes_that_a_host_threw_away_are_kept(tmp_path: Path) -> None:
    folder, manifest = Folder(tmp_path, "esx1"), Manifest("esx1")
    for content in (b"one", b"one two", b"three"):
        with folder.open("log.part", "wb") as file:
            file.write(content)
        folder.finish(manifest.put(Record("/log", "log")), manifest)
    assert (folder.path / "log").read_bytes() == b"three"
    assert [p.read_bytes() for p in (folder.path / "earlier").iterdir()] == [b"one two"]
    assert [r.state for r in manifest.files] == ["whole", "earlier"]


def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(path), password="open-sesame-99")
    assert "open-sesame" not in repr(way_in(["root"], path, False, lambda user: "open-sesame-99"))
    for source in (None, lambda user: "wrong-44"):
        with pytest.raises(InputError) as caught:
            way_in(["root"], path, False, source)
        assert "wrong-44" not in str(caught.value) and "passphrase" in str(caught.value)
