"""What happened, as vCenter's events tell it: those that mean something to us, from the oldest kept on, each given to the host it is about."""

from __future__ import annotations

import contextlib
import http.client
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from psodlib.collector.session import CallFailed, Session, name_of, plain, stamp, words_of
from psodlib.errors import CollectError
from psodlib.evidence.artifacts.vcenter import AWAY, OF_CLUSTER, meaning_of

PAGE = 1_000  # vCenter's own limit
MOST = 500_000
KEPT_DAYS = 30  # vCenter's own default
MOST_SPOILT = 1_000  # that cannot be read
LOST = 3  # times that a collector may be lost
# How far a failover may lie from the event that names the host.
BEFORE, AFTER = timedelta(minutes=10), timedelta(hours=1)
MOST_LOST = 200  # events of lost hosts around one failover that are looked at
Row = dict[str, Any]


class Events:
    """The events of the asked span, and what of them is missing."""

    def __init__(self, session: Session, since: datetime | None, taken: datetime) -> None:
        self.session, self.missing = session, list[str]()
        self.oldest: datetime | None = None
        self._rows: dict[int, Row] = {}
        self._spoilt = 0
        days = KEPT_DAYS
        with contextlib.suppress(Exception):
            days = max(int(session.content.setting.QueryOptions("event.maxAge")[0].value), 1)
        self._begin = since or taken - timedelta(days=days)
        self._begin = self._begin if self._begin.tzinfo else self._begin.replace(tzinfo=UTC)
        try:
            # Host-days are known from the oldest event that is kept, whatever it tells, and no further back.
            first = session.call(self._first)
            if not first:
                self.missing.append("events: none came, so no host-days count from boot times; may the user see them?")
                return
            self.oldest = max(self._begin, min(event.createdTime for event in first))
            types = self._types()
            session.call(lambda: self._read(types))
        except CollectError:
            raise
        except Exception as error:
            # A crash may be among them: no host-days without it.
            self.oldest = None
            self.missing.append(f"events: the rest is lost, so no host-days count from boot times ({words_of(error)})")
        if self._spoilt:
            self.missing.append(f"events: {self._spoilt} could not be read")

    def _first(self) -> list[Any]:
        with self._collector([]) as collector:
            return list(collector.ReadNextEvents(PAGE) or ())

    def _types(self) -> list[str]:
        # The ids that mean something to us, of those that this vCenter knows; all events where it does not say.
        with contextlib.suppress(Exception):
            known = self.session.content.eventManager.description.eventInfo
            ids = [(_short(one.key), one.fullFormat.partition("|")[0]) for one in known]
            words = {word if kind in ("EventEx", "ExtendedEvent") else kind for kind, word in ids}
            return sorted(word for word in words if meaning_of(word))
        return []

    @contextlib.contextmanager
    def _collector(self, types: list[str]) -> Iterator[Any]:
        session, spec, create = (
            self.session,
            self.session.vim.event.EventFilterSpec,
            self.session.content.eventManager.CreateCollectorForEvents,
        )
        asked = {"time": spec.ByTime(beginTime=self._begin), "disableFullMessage": False}
        try:
            collector = create(spec(eventTypeId=types, **asked) if types else spec(**asked))
        except session.fault as error:
            if not types or isinstance(error, session.vim.fault.NotAuthenticated):
                raise
            types.clear()  # this vCenter does not take such a filter
            collector = create(spec(**asked))
        try:
            yield collector
        finally:
            with contextlib.suppress(Exception):
                collector.DestroyCollector()

    def _read(self, types: list[str]) -> None:
        # A collector may be lost, and one event spoils its page: both go on from the last event that was read, the second in
        # smaller pages.
        size, lost = PAGE, 0
        while True:
            try:
                with self._collector(types) as collector:
                    while len(self._rows) < MOST:
                        try:
                            page = collector.ReadNextEvents(size)
                        except (OSError, http.client.HTTPException, self.session.fault):
                            raise
                        except Exception:
                            if size > 1:
                                size //= 10
                                break
                            self._spoilt, size = self._spoilt + 1, PAGE
                            if self._spoilt > MOST_SPOILT:
                                raise
                            continue
                        if not page:
                            return
                        self._rows |= {event.key: _row(event) for event in page}
                        self._begin = max(self._begin, *(event.createdTime for event in page))
                    else:
                        raise CallFailed(f"more than {MOST:,}; give a later since")
            except self.session.lost:
                lost += 1
                if lost > LOST:
                    raise

    def by_host(
        self, clusters: Mapping[str, str | None], names: Mapping[str, str]
    ) -> tuple[dict[str, list[Row]], set[str]]:
        """Each host's events, by its id, and the names of hosts that are gone; of each host its cluster's id, of each name its host's.

        A failover's events name the cluster and the hosts that took the machines over. They are given to the host of that cluster
        which vSphere HA, or else vCenter, had lost just then; to several, if several were lost.
        """
        told: dict[str, list[Row]] = {}
        gone: set[str] = set()
        for row in self._rows.values():
            known = row["id"] if row["id"] in clusters else names.get(row["host"] or "")
            if known is None and row["host"]:
                gone.add(row["host"])
            elif known is not None and meaning_of(row["kind"]) not in OF_CLUSTER:
                told.setdefault(known, []).append(row)
        away: dict[str | None, list[tuple[str, str]]] = defaultdict(list)  # cluster -> (time, host), in order
        for host, rows in told.items():
            away[clusters[host]] += [(row["time"], host) for row in rows if meaning_of(row["kind"]) in AWAY]
        for lost in away.values():
            lost.sort()
        for row in self._rows.values():
            if meaning_of(row["kind"]) in OF_CLUSTER:
                time, lost = datetime.fromisoformat(row["time"]), away[row["cluster"] or clusters.get(row["id"])]
                first, last = ((time - AFTER).isoformat(), ""), ((time + BEFORE).isoformat(), "~")
                hosts = {host for _, host in lost[bisect_left(lost, first) : bisect_right(lost, last)][:MOST_LOST]}
                for host in hosts:
                    told[host].append({**row, "among": len(hosts)})
        return told, gone


def _row(event: Any) -> Row:
    # Whom it is about, when, what kind, and its words. HA names a failed host elsewhere.
    host = getattr(event, "failedHost", None) or getattr(event, "sourceHost", None) or event.host
    cluster = event.computeResource
    return {
        "id": host.host._moId if host is not None else None, "host": name_of(host.name) if host is not None else None,
        "cluster": cluster.computeResource._moId if cluster is not None else None, "time": stamp(event.createdTime),
        "kind": plain(getattr(event, "eventTypeId", None) or _short(type(event))),
        "vm": name_of(event.vm.name) if event.vm is not None else None, "words": plain(event.fullFormattedMessage),
    }  # fmt: skip


def _short(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
