"""The lives of a story's hosts -> an evidence folder: rotated, packed, damaged, with the truth beside it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

from psodlib.errors import InputError
from psodlib.simulate import text
from psodlib.simulate.process import History, Process, simulate_history
from psodlib.simulate.stories import story_named

MARKER = "This fleet is made up: psodlib's simulate_fleet wrote these files, and no such hosts exist.\n"
DAY = text.DAY
FRAGMENT = 1_000_000  # a support bundle splits larger files
# Dates of the statistics' fleet, which runs 548 days; another length moves them along.
SCALED = ("rollout_58_days", "rollout_58_spread", "rollout_60_days", "late_days")


def simulate_fleet(
    out: str | Path, hosts: int = 60, days: float = 365, seed: int = 7, start: str | None = None, *, story: str = "hpsa",
    installs: pd.DataFrame | None = None, clusters: int = 12, bundles: float = 0.2, rotation_loss: float = 0.25,
    truncated: float = 0.1, no_dump: float = 0.3, cut_dump: float = 0.3, **process: Any,
) -> History:  # fmt: skip
    """Write a made-up fleet's evidence folder in ESXi's own file formats, with the truth in ``truth/``.

    Parameters
    ----------
    out : str or Path
        Folder to write; made if missing, must be empty.
    hosts, days, seed, clusters
        As for `simulate_history`.
    start : str, optional
        First day of the history; without it the story's own.
    story : str
        Which driver is the bad one: ``hpsa`` (ESXi 5.5), ``nhpsa`` (6.7), ``i40en`` (7.0), ``smartpqi`` (8.0), or
        ``firmware`` (7.0: one i40en driver over three firmwares, of which the second is bad).
    installs : pandas.DataFrame, optional
        ``host``, ``time``, ``version``: who installs what when, as a plan and its stops have it, in place of the clusters'
        own roll-out. Installs added later than ``days`` change nothing before, where ``late_share`` and
        ``gaps_per_host`` are 0; so a roll-out can be simulated week by week.
    bundles, rotation_loss, truncated : float
        Shares of hosts: whose evidence is one vm-support ``.tgz`` (the first of them fills its log, which comes in fragments); that
        kept only the newest rotation of ``vmkernel.log``; whose oldest rotation of it is cut short.
    no_dump, cut_dump : float
        Of the crashes that cannot be attributed, the shares that left no dump log, or one that ends before the
        backtrace. The rest names nothing but the vmkernel.
    **process
        Any field of `Process`. Dates of the roll-out default to the usual ones, stretched by ``days / 548``.

    Returns
    -------
    History
        What was written, as `simulate_history` gives it.

    Raises
    ------
    InputError
        A parameter out of its range, an unknown story, or a folder that is not empty.

    Notes
    -----
    The same arguments write the same bytes with one version of zlib. A crash inside a gap of the logs still leaves its
    dump log; `History.exposure` says what a reader can count.
    """
    shares = {"bundles": bundles, "rotation_loss": rotation_loss, "truncated": truncated, "no_dump": no_dump,
              "cut_dump": cut_dump, "no_dump + cut_dump": no_dump + cut_dump}  # fmt: skip
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"{name} = {share}; expected 0 to 1")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: not an empty folder; delete it or name another")
    for name in SCALED:
        usual, factor = getattr(Process(), name), days / 548
        scaled = usual * factor if isinstance(usual, float) else tuple(part * factor for part in usual)
        process.setdefault(name, scaled)
    start = start or story_named(story).start
    history = simulate_history(hosts, days, clusters, seed, start=start, story=story, installs=installs, **process)
    out.mkdir(parents=True, exist_ok=True)
    (out / "SIMULATED").write_text(MARKER, encoding="utf-8", newline="\n")
    lives = list(_lives(history, seed, no_dump, cut_dump, round(bundles * hosts)))
    for number, life in enumerate(lives):
        rng = Random(f"{seed}/{life.host}/text")
        files = _evidence(life, rng, rng.random() < rotation_loss, rng.random() < truncated)
        if number < round(bundles * hosts):
            _write_bundle(out / life.host, life, files)
        else:
            _write_plain(out / life.host, files)
        for time, outputs in text.earlier_outputs(life):
            captured = {f"commands/{name}": output.encode() for name, output in outputs.items()}
            _write_plain(out / life.host / _bundle_name(life, time), captured)
    inventory = ["host", "cluster", "vendor", "model", "users", "vms"]
    _write_table(out / "inventory.csv", history.hosts[inventory])
    given = {"hosts": hosts, "days": days, "seed": seed, "start": start, "clusters": clusters, "story": story, **shares}
    _write_truth(out / "truth", history, lives, given)
    return history


def _lives(history: History, seed: int, no_dump: float, cut_dump: float, bundled: int) -> Iterator[text.Life]:
    def rows(table: pd.DataFrame) -> dict[str, list[Any]]:
        of_host = _in_ms(table).groupby("host", sort=False)
        return {str(host): list(mine.itertuples(index=False)) for host, mine in of_host}

    boots = history.boots.rename(columns={"boot": "start", "esxi_build": "build"})
    told = [rows(table) for table in (boots, history.crashes.assign(form=""), history.installs, history.gaps)]
    hosts: Any = history.hosts.itertuples()
    for number, host in enumerate(hosts):
        lived, crashed, installs, gaps = (table.get(host.host, []) for table in told)
        if not lived:
            continue  # joined in the study's last moment
        rng = Random(f"{seed}/{host.host}/dumps")
        for place, crash in enumerate(crashed):
            draw = rng.random()
            form = "none" if draw < no_dump else "cut" if draw < no_dump + cut_dump else "bare"
            form = "whole" if crash.attributed or crash.deliberate else form
            crashed[place] = crash._replace(form=form, module=crash.module if isinstance(crash.module, str) else None)
        # A host that is down when the study ends was asked a minute before.
        collected = lived[-1].end - (0 if lived[-1].end_reason == "running" else 60_000)
        chatty = number == 0 and bundled > 0
        told_of = (lived, crashed, installs, gaps)
        yield text.Life(history.story, host.host, host.model, host.vms, *told_of, collected, chatty)


def _in_ms(table: pd.DataFrame) -> pd.DataFrame:
    times = table.select_dtypes("datetimetz").items()
    return table.assign(**{str(name): column.astype("datetime64[ms, UTC]").astype("int64") for name, column in times})


def _evidence(life: text.Life, rng: Random, lost: bool, cut: bool) -> dict[str, bytes]:
    # Path as on the host -> bytes. vmksummary has whole seconds, like esxupdate; vmkernel has milliseconds.
    files = {}
    summary = _rotate(text.vmksummary_log(life), life.collected, 20, 90)
    said = text.vmkernel_lines(life, rng)
    kernel = _rotate(life.seen(said), life.collected, 31, 110)
    if lost:
        kernel = kernel[:2]
    for name, rotations in (("vmksummary", summary), ("vmkernel", kernel)):
        for number, lines in enumerate(rotations):
            body = _join(lines, fraction=name == "vmkernel")
            path = f"var/log/{name}.log" if number == 0 else f"var/log/{name}.{number - 1}.gz"
            files[path] = gzip.compress(body, 9, mtime=0) if number else body
    if cut and len(kernel) > 2:
        oldest = f"var/log/vmkernel.{len(kernel) - 2}.gz"
        files[oldest] = files[oldest][: len(files[oldest]) * 3 // 5]
    files["var/log/esxupdate.log"] = _join(text.esxupdate_log(life), fraction=False)
    dumps = [crash for crash in life.crashes if crash.form != "none"]
    for number, crash in enumerate(dumps, start=1):
        files[f"var/core/vmkernel-log.{number}"] = text.dump_log(life, crash, said, rng).encode()
    for name, output in text.command_outputs(life).items():
        files[f"commands/{name}"] = output.encode()
    return files


def _rotate(lines: Sequence[text.Line], now: int, newest: int, each: int) -> list[list[text.Line]]:
    # Newest file first: the last `newest` days, then `each` days a file. A file without lines was never written.
    ages: dict[int, list[text.Line]] = {}
    for line in lines:
        age = (now - line.time) / DAY
        ages.setdefault(0 if age < newest else 1 + int((age - newest) // each), []).append(line)
    ages.setdefault(0, [])
    return [ages[number] for number in sorted(ages)]


def _join(lines: Sequence[text.Line], fraction: bool) -> bytes:
    return "".join(f"{text.stamp(line.time, fraction)} {line.text}\n" for line in lines).encode()


def _write_plain(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _write_bundle(folder: Path, life: text.Life, files: dict[str, bytes]) -> None:
    # As vm-support packs it: one top folder, logs in var/run/log with links from var/log, large files in fragments.
    moment, top = text.stamp(life.collected), _bundle_name(life, life.collected)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, content in files.items():
            real = path.replace("var/log/", "var/run/log/")
            large = len(content) > FRAGMENT
            for number, start in enumerate(range(0, max(len(content), 1), FRAGMENT)):
                name = f"{real}.FRAG-{number:05d}" if large else real
                _add(archive, f"{top}/{name}", life.collected, content[start : start + FRAGMENT])
                if real != path:
                    link = name.replace("var/run/log/", "../run/log/")
                    _add(archive, f"{top}/{name.replace('var/run/', 'var/')}", life.collected, link=link)
        _add(archive, f"{top}/etc/vmware/esx.conf", life.collected, f'/adv/Misc/HostName = "{life.host}"\n'.encode())
        _add(archive, f"{top}/action.log", life.collected, f"{moment} vm-support: done\n".encode())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{top}.tgz").write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def _bundle_name(life: text.Life, time: int) -> str:
    moment = text.stamp(time)
    return f"esx-{life.host}-{moment[:10]}--{moment[11:13]}.{moment[14:16]}-{34000 + len(life.host)}"


def _add(archive: tarfile.TarFile, name: str, time: int, content: bytes = b"", link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.mtime, member.size = time // 1000, len(content)
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    archive.addfile(member, io.BytesIO(content))


def _write_truth(folder: Path, history: History, lives: Sequence[text.Life], given: dict[str, Any]) -> None:
    folder.mkdir()
    forms = {(life.host, crash.time): crash.form for life in lives for crash in life.crashes}
    crashes = history.crashes.drop(columns="boot_row")
    crashes["form"] = [forms[key] for key in zip(crashes["host"], _in_ms(crashes)["time"], strict=True)]
    tables = {"crashes": crashes, "rates": _rates(history), "hosts": history.hosts, "boots": history.boots,
              "installs": history.installs, "gaps": history.gaps}  # fmt: skip
    for name, table in tables.items():
        _write_table(folder / f"{name}.csv", table)
    parameters = json.dumps({**given, **asdict(history.parameters)}, indent=1)
    (folder / "parameters.json").write_text(f"{parameters}\n", encoding="utf-8", newline="\n")


def _rates(history: History) -> pd.DataFrame:
    # What a perfect reader can count, beside the rate that the dice were loaded with (host of hazard 1, per host-year).
    rules, story = history.parameters, history.story
    by = ["firmware"] if story.of_firmware else ["version"]
    names = [step.firmware or step.version for step in story.steps]
    ran = history.boots.drop_duplicates(["host", "boot"])[["host", "boot", "firmware"]]
    exposed = history.exposure().astype({"host": object}).merge(ran, on=["host", "boot"], how="left")
    counted = ["host_days", "crashes", "unknown_crashes", "other_crashes"]
    rates = exposed.groupby(by, observed=True)[counted].sum().reset_index()
    true = dict(zip(names, (1.0, rules.ratio_58, rules.ratio_60), strict=True))
    rates["driver_rate"] = [rules.driver_rate * true[name] for name in rates[by[0]]]
    return rates.round({"host_days": 4})


def _write_table(path: Path, table: pd.DataFrame) -> None:
    in_ms = _in_ms(table)
    times = {str(name): in_ms[name].map(text.stamp) for name in table.select_dtypes("datetimetz")}
    path.write_text(table.assign(**times).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
