"""What Vigil needs of Airflow's REST API (v2)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from ml.common.errors import NotFoundError, VigilError

_PAGE = 100
_TRIES = 4


class AirflowError(VigilError):
    """Airflow cannot be reached, refuses, or has not parsed the DAGs."""

    exit_code = 7


@dataclass(frozen=True)
class BackfillRequest:
    """What is asked of Airflow's backfill.

    Attributes:
        from_date, to_date: first and last logical date, both included; aware.
        reprocess: what happens to days that have a run: ``none`` leaves it, ``failed`` and ``completed`` clear it in
            place.
        max_active_runs: runs at once, beside those of the schedule: the DAG's own limit does not count them.
    """

    dag_id: str
    from_date: datetime
    to_date: datetime
    reprocess: str = "none"
    max_active_runs: int = 1

    def body(self) -> dict[str, Any]:
        """As the API takes it. Cleared runs take the DAG as it is now."""
        return {
            "dag_id": self.dag_id,
            "from_date": _iso(self.from_date),
            "to_date": _iso(self.to_date),
            "reprocess_behavior": self.reprocess,
            "max_active_runs": self.max_active_runs,
            "run_on_latest_version": True,
        }


class AirflowApi:
    """A client of one Airflow server.

    The embedded stack makes everybody an administrator and asks for no password; a server with users does.

    Args:
        url: of the api-server, without ``/api``.
        username: for servers with users.
        password: for servers with users.
        timeout: seconds to wait for an answer.
    """

    def __init__(
        self, url: str, username: str | None = None, password: str | None = None, timeout: float = 30.0
    ) -> None:
        self.url = url.rstrip("/")
        self._credentials = {"username": username, "password": password} if username else None
        self._client = httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)
        self._token: str | None = None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def health(self) -> dict[str, Any]:
        """State of the metadata database, the scheduler and the dag-processor."""
        return dict(self._call("GET", "/monitor/health"))

    def import_errors(self) -> dict[str, str]:
        """Last line of the traceback of each DAG file that does not import."""
        found = self._call("GET", "/importErrors", params={"limit": _PAGE})["import_errors"]
        return {error["filename"]: (error["stack_trace"].strip().splitlines() or [""])[-1] for error in found}

    def dag_ids(self) -> set[str]:
        """DAGs that the dag-processor has parsed and that are in their files still."""
        found = self._pages("/dags", "dags", {"exclude_stale": True})
        return {dag["dag_id"] for dag in found}

    def wait_for_dags(self, dag_ids: Iterable[str], timeout: float = 120.0) -> None:
        """Wait until the DAGs are parsed.

        Raises:
            AirflowError: they are not in time; names the file that does not import, where one is at fault.
        """
        wanted = set(dag_ids)
        deadline = time.monotonic() + timeout
        while missing := wanted - self.dag_ids():
            wrong = self.import_errors()
            if wrong:
                file, line = sorted(wrong.items())[0]
                raise AirflowError(f"the DAG file {file} does not import ({line})", "correct the file")
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing))
                raise AirflowError(
                    f"Airflow has not parsed {names} after {timeout:.0f} s", "see the dag-processor's log"
                )
            time.sleep(1.0)

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG."""
        self._set_paused(dag_id, False)

    def pause(self, dag_id: str) -> None:
        """Let the scheduler create no more runs of a DAG."""
        self._set_paused(dag_id, True)

    def _set_paused(self, dag_id: str, paused: bool) -> None:
        self._call("PATCH", f"/dags/{_part(dag_id)}", params={"update_mask": "is_paused"}, json={"is_paused": paused})

    def trigger(
        self,
        dag_id: str,
        run_id: str,
        logical_date: datetime | None,
        data_interval_start: datetime | None = None,
        data_interval_end: datetime | None = None,
        conf: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Create a run, or return the one that has this id already. Times are aware.

        Raises:
            AirflowError: Airflow refuses, for instance because another run has this logical date.
        """
        body = {
            "dag_run_id": run_id,
            "logical_date": _iso(logical_date),
            "data_interval_start": _iso(data_interval_start),
            "data_interval_end": _iso(data_interval_end),
            "conf": dict(conf or {}),
        }
        try:
            return dict(self._call("POST", f"/dags/{_part(dag_id)}/dagRuns", json=body))
        except ConflictError as conflict:
            try:
                return self.dag_run(dag_id, run_id)
            except NotFoundError:
                raise conflict from None

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run: ``state``, ``start_date``, ``end_date``, ``logical_date``, ….

        Raises:
            NotFoundError: there is no such run.
        """
        return dict(self._call("GET", f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}"))

    def dag_runs(
        self, dag_id: str, since: datetime | None = None, until: datetime | None = None
    ) -> list[dict[str, Any]]:
        """Runs of a DAG, oldest logical date first.

        Args:
            since: first logical date, aware.
            until: last logical date, aware.
        """
        limits = {"logical_date_gte": _iso(since), "logical_date_lte": _iso(until)}
        params = {"order_by": "logical_date", **{name: value for name, value in limits.items() if value}}
        return self._pages(f"/dags/{_part(dag_id)}/dagRuns", "dag_runs", params)

    def last_successes(self, dag_id: str, count: int) -> list[dict[str, Any]]:
        """The runs that ended well last, newest first."""
        params = {"state": "success", "order_by": "-end_date", "limit": count}
        return list(self._call("GET", f"/dags/{_part(dag_id)}/dagRuns", params=params)["dag_runs"])

    def is_paused(self, dag_id: str) -> bool:
        """Whether the scheduler leaves a DAG's runs, backfilled ones included, in the queue."""
        return bool(self._call("GET", f"/dags/{_part(dag_id)}")["is_paused"])

    def fail(self, dag_id: str, run_id: str) -> None:
        """End a run that waits in the queue, as failed."""
        self._call("PATCH", f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}", json={"state": "failed"})

    def clear(self, dag_id: str, run_id: str, *, only_failed: bool = True) -> None:
        """Let a run's failed tasks (or all) run again, with the DAG as it is now."""
        body = {"dry_run": False, "only_failed": only_failed, "run_on_latest_version": True}
        self._call("POST", f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}/clear", json=body)

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Task instances: ``task_id``, ``map_index``, ``state``, ``start_date``, ``end_date``, ``try_number``, …."""
        return self._pages(f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}/taskInstances", "task_instances", {})

    def logs(
        self, dag_id: str, run_id: str, task_id: str, try_number: int, *, map_index: int = -1, lines: int = 50
    ) -> list[str]:
        """The last lines of a try's log."""
        found = self._call(
            "GET",
            f"/dags/{_part(dag_id)}/dagRuns/{_part(run_id)}/taskInstances/{_part(task_id)}/logs/{try_number}",
            params={"full_content": True, "map_index": map_index},
            headers={"Accept": "application/json"},
        )["content"]
        text = [line for entry in found for line in _lines(entry)]
        return text[-lines:]

    def failure(self, dag_id: str, run_id: str, task_id: str) -> str:
        """Why a task is red, in one line: its known cause where it has one, else the last line of its log."""
        failed = [
            instance
            for instance in self.task_instances(dag_id, run_id)
            if instance["task_id"] == task_id and instance["state"] in ("failed", "up_for_retry")
        ]
        if not failed:
            return "no try of it has failed"
        first = min(failed, key=lambda instance: instance["map_index"])
        lines = self.logs(dag_id, run_id, task_id, first["try_number"], map_index=first["map_index"], lines=400)
        wrong = [line for line in lines if "Error: " in line or "Exception: " in line]
        return (wrong or lines or ["its log is empty"])[-1][:500]

    def backfills(self, dag_id: str) -> list[dict[str, Any]]:
        """Backfills of a DAG, newest first: ``id``, ``from_date``, ``to_date``, ``is_paused``, ``completed_at``, …."""
        return self._pages("/backfills", "backfills", {"dag_id": dag_id, "order_by": "-id"})

    def backfill(self, backfill_id: int) -> dict[str, Any]:
        """One backfill.

        Raises:
            NotFoundError: there is no such backfill.
        """
        return dict(self._call("GET", f"/backfills/{backfill_id}"))

    def would_backfill(self, request: BackfillRequest) -> list[datetime]:
        """Logical dates that a backfill would run; nothing is created."""
        found = self._call("POST", "/backfills/dry_run", json=request.body())["backfills"]
        return [datetime.fromisoformat(one["logical_date"].replace("Z", "+00:00")) for one in found]

    def create_backfill(self, request: BackfillRequest) -> dict[str, Any]:
        """Create a backfill and its runs.

        Raises:
            ConflictError: another backfill of the DAG is under way.
        """
        return dict(self._call("POST", "/backfills", json=request.body()))

    def cancel_backfill(self, backfill_id: int) -> dict[str, Any]:
        """Start no more runs of a backfill: the queued ones fail, the running ones go on to their end.

        Raises:
            ConflictError: it is over already.
        """
        return dict(self._call("PUT", f"/backfills/{backfill_id}/cancel"))

    def pools(self) -> dict[str, int]:
        """Slots of each pool."""
        return {pool["name"]: pool["slots"] for pool in self._pages("/pools", "pools", {})}

    def _pages(self, path: str, key: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self._call("GET", path, params={**params, "limit": _PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        """A call with a token; a refused one is renewed once."""
        for attempt in (1, 2):
            headers = {"Authorization": f"Bearer {self._login(renew=attempt == 2)}", **arguments.get("headers", {})}
            answer = self._send(method, f"/api/v2{path}", **{**arguments, "headers": headers})
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
        if answer.is_success:
            return answer.json() if answer.content else {}
        detail = _detail(answer)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFoundError(f"Airflow knows no such thing ({detail})", "look at its web page")
        if answer.status_code == httpx.codes.CONFLICT:
            raise ConflictError(f"Airflow has it already ({detail})", "look at its web page")
        raise AirflowError(
            f"Airflow refused {method} {path} ({answer.status_code}: {detail})", "see the api-server's log"
        )

    def _login(self, *, renew: bool) -> str:
        if self._token is None or renew:
            if self._credentials:
                answer = self._send("POST", "/auth/token", json=self._credentials)
            else:
                answer = self._send("GET", "/auth/token")
            if not answer.is_success:
                raise AirflowError(f"Airflow at {self.url} refuses the login ({answer.status_code})", "check the user")
            self._token = str(answer.json()["access_token"])
        return self._token

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """A call; a question that a busy server does not answer in time is asked again."""
        tries = _TRIES if method == "GET" else 1
        while True:
            tries -= 1
            try:
                return self._client.request(method, path, **arguments)
            except httpx.HTTPError as error:
                if tries and isinstance(error, httpx.ReadTimeout):
                    continue
                raise AirflowError(
                    f"Airflow at {self.url} does not answer ({type(error).__name__})", "see 'vigil stack status'"
                ) from None


class ConflictError(AirflowError):
    """Airflow has a thing of this name or date already."""


def _part(text: str) -> str:
    return quote(text, safe="")


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
        return str(detail["reason"] if isinstance(detail, dict) and "reason" in detail else detail)[:300]
    except (ValueError, KeyError, TypeError):
        return answer.reason_phrase


def _lines(entry: Any) -> list[str]:
    """A structured log entry as text: the event, and each error it carries as ``Type: message``."""
    if not isinstance(entry, dict):
        return [str(entry)]
    wrong = [f"{e.get('exc_type', 'Error')}: {e.get('exc_value', '')}" for e in entry.get("error_detail") or []]
    return [str(entry.get("event", "")), *wrong]
