"""What the report is made of. Each part is there, or a sentence says why it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

from ml.common.db import Connection, connect, fetch
from ml.common.errors import VigilError
from ml.common.files import read_json
from ml.evaluation.results import Evaluation
from ml.extraction import Snapshot, load_snapshot
from ml.extraction.log import Partition, committed_partition, pending_partition
from ml.publication.report_network import Edge
from ml.publication.surveillance_rows import Watched, read_watched
from ml.quality.verdict import Verdict, read_verdict
from ml.settings import Role, Settings, get_settings

STRONGEST = 20
T = TypeVar("T")

RELEASES = """
    select r.release_id::text, r.table_name, r.as_of, r.row_count, r.model_version, r.released_at,
           c.release_id is not null as current
    from published.releases r left join published.current_releases c using (release_id)
    where r.as_of = %(as_of)s or c.release_id is not null
    order by r.table_name, r.as_of, r.released_at
"""
RISKS = """
    select outcome, horizon_days, count(*) filter (where in_scope), count(*) filter (where not in_scope), avg(risk)
    from published.current_risk_scores where as_of = %(as_of)s group by outcome, horizon_days order by outcome
"""
SCOPE = """
    select outcome, scope_reason, count(*) from published.current_risk_scores
    where as_of = %(as_of)s and not in_scope group by outcome, scope_reason order by outcome, count(*) desc
"""
# Strongest by the lower bound of the interval where there is one: a large ratio from few patients does not lead.
EDGES = """
    select method, weight_meaning, source_code, target_code, weight, ci_low, ci_high, n_both, directed, p_adjusted
    from (select *, row_number() over (partition by method
                 order by coalesce(ci_low, weight) desc, source_code, target_code) as place
          from published.current_disease_interconnections
          where as_of = %(as_of)s and significant is not false) ranked
    where place <= %(strongest)s order by method, place
"""
METHODS = """
    select method, count(*), count(*) filter (where significant)
    from published.current_disease_interconnections where as_of = %(as_of)s group by method order by method
"""
DECISIONS = """
    select model_version, decision, decided_by, by_policy, requested_by, decided_at, expires_at, metrics_digest
    from governance.decisions where model_name = %(model)s order by decided_at desc
"""
CHAMPION = """
    select d.model_version, d.decision, d.decided_by, d.by_policy, d.requested_by, d.decided_at, d.expires_at,
           d.metrics_digest
    from governance.promotions p join governance.decisions d using (decision_id)
    where p.model_name = %(model)s order by p.promoted_at desc limit 1
"""


@dataclass(frozen=True)
class Decision:
    """Who let a model through, or did not."""

    version: int
    decision: str
    decided_by: str
    by_policy: bool
    requested_by: str
    decided_at: datetime
    expires_at: datetime
    metrics_digest: str


@dataclass(frozen=True)
class ReleaseRow:
    release_id: str
    table: str
    as_of: date
    rows: int
    model_version: int | None
    released_at: datetime
    current: bool


@dataclass(frozen=True)
class RiskRow:
    """Published scores of one outcome; a count below the least cell is None."""

    outcome: str
    horizon_days: int
    in_scope: int | None
    out_of_scope: int | None
    mean: float | None
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Method:
    name: str
    meaning: str
    pairs: int
    significant: int
    edges: tuple[Edge, ...] = ()


@dataclass(frozen=True)
class Published:
    """What lies in Postgres for the night; ``problem`` says why it could not be read."""

    releases: tuple[ReleaseRow, ...] = ()
    risks: tuple[RiskRow, ...] = ()
    methods: tuple[Method, ...] = ()
    champion: Decision | None = None
    decisions: tuple[Decision, ...] = ()
    watched: tuple[Watched, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Model:
    """The model the report shows.

    Attributes:
        role: ``champion`` or ``challenger``.
        decision: the decision on this very evaluation (same metrics digest), or None.
        gate: content of gate.json, or None.
        training: record of the fine-tuning, or None.
    """

    evaluation: Evaluation
    role: str
    decision: Decision | None
    gate: dict[str, Any] | None
    training: dict[str, Any] | None = None


@dataclass(frozen=True)
class Night:
    """Everything the report shows of one day."""

    as_of: date
    settings: Settings
    snapshot: Snapshot | None
    partition: Partition | None
    verdict: Verdict | None
    model: Model | None
    published: Published = field(default_factory=Published)


def gather(as_of: date) -> Night:
    """Read everything; nothing here raises for a part that is absent."""
    settings = get_settings()
    snapshot = _snapshot(as_of)
    partition = _partition_of(as_of, snapshot)
    published = read_published(as_of, settings)
    return Night(
        as_of=as_of,
        settings=settings,
        snapshot=snapshot,
        partition=partition,
        verdict=_verdict_on(partition),
        model=find_model(as_of, published, settings),
        published=published,
    )


def _partition_of(as_of: date, snapshot: Snapshot | None) -> Partition | None:
    """The day's partition: its own, the newest in its snapshot, or one that quality held back."""
    own = committed_partition(as_of)
    if own is None and snapshot is not None and snapshot.partitions:
        return committed_partition(date.fromisoformat(snapshot.partitions[-1]))
    return own or pending_partition(as_of)


def _or_none(read: Callable[[Path], T], path: Path) -> T | None:
    try:
        return read(path)
    except (VigilError, OSError):
        return None


def _verdict_on(partition: Partition | None) -> Verdict | None:
    try:
        return read_verdict(partition) if partition else None
    except (VigilError, OSError):
        return None


def _snapshot(as_of: date) -> Snapshot | None:
    try:
        return load_snapshot(as_of)
    except VigilError:
        return None


def _json(path: Path) -> Any:
    return read_json(path) if path.is_file() else None


def read_published(as_of: date, settings: Settings) -> Published:
    """What the readers' role may see of the night."""
    try:
        with connect(Role.READ, readonly=True) as connection:
            return _read_published(connection, as_of, settings)
    except VigilError as error:
        return Published(problem=error.cause)


def _read_published(connection: Connection, as_of: date, settings: Settings) -> Published:
    day, model = {"as_of": as_of}, {"model": settings.model_name}
    edges = fetch(connection, EDGES, {**day, "strongest": STRONGEST})
    methods = [_method(row, edges) for row in fetch(connection, METHODS, day)]
    methods.sort(key=lambda m: (not any(edge.directed for edge in m.edges), m.name))  # directed ones say more
    champions = fetch(connection, CHAMPION, model)
    return Published(
        releases=tuple(ReleaseRow(*row) for row in fetch(connection, RELEASES, day)),
        risks=_risks(connection, day, settings.min_cell),
        methods=tuple(methods),
        champion=Decision(*champions[0]) if champions else None,
        decisions=tuple(Decision(*row) for row in fetch(connection, DECISIONS, model)),
        watched=tuple(read_watched(connection)),
    )


def _risks(connection: Connection, day: dict[str, date], least: int) -> tuple[RiskRow, ...]:
    def shown(count: int) -> int | None:
        return None if 0 < count < least else count

    scope = fetch(connection, SCOPE, day)
    rows = []
    for outcome, horizon, inside, outside, mean in fetch(connection, RISKS, day):
        reasons = fold_small([(reason, count) for name, reason, count in scope if name == outcome], least)
        rows.append(
            RiskRow(outcome, horizon, shown(inside), shown(outside), mean if inside >= least else None, reasons)
        )
    return tuple(rows)


def fold_small(counts: list[tuple[str, int]], least: int) -> tuple[tuple[str, int], ...]:
    """Join the smallest counts until none is below ``least``, so that none can be had by subtraction either."""
    kept, folded = sorted(counts, key=lambda item: (-item[1], item[0])), 0
    while kept and (kept[-1][1] < least or 0 < folded < least):
        folded += kept.pop()[1]
    return (*kept, ("other reasons", folded)) if folded >= least else tuple(kept)


def _method(row: tuple[Any, ...], edges: list[tuple[Any, ...]]) -> Method:
    name, pairs, significant = row
    own = [edge for edge in edges if edge[0] == name]
    found = tuple(
        Edge(source, target, weight, low, high, both, directed, p)
        for _, _, source, target, weight, low, high, both, directed, p in own
    )
    return Method(name, own[0][1] if own else "", pairs, significant, found)


def find_model(as_of: date, published: Published, settings: Settings) -> Model | None:
    """The night's own retraining; without one the champion; without that nothing."""
    training = settings.data_dir / "training"
    own = sorted(training.glob(f"{as_of}-*/evaluation.json"))
    others = [
        *sorted(training.glob("*/evaluation.json")),
        *sorted((settings.data_dir / "models").glob("*/evaluation.json")),
    ]
    champion = published.champion
    for path in reversed(own):
        evaluation = _or_none(Evaluation.load, path)
        if evaluation is not None:
            return _model(evaluation, path, published)
    for path in others if champion else []:
        evaluation = _or_none(Evaluation.load, path)
        if evaluation is not None and champion and evaluation.digest == champion.metrics_digest:
            return _model(evaluation, path, published)
    return None


def _model(evaluation: Evaluation, path: Path, published: Published) -> Model:
    champion = published.champion
    gate, training = _json(path.with_name("gate.json")), _json(path.parent / "finetuned" / "training.json")
    if champion is not None and champion.metrics_digest == evaluation.digest:
        return Model(evaluation, "champion", champion, gate, training)
    decision = next((d for d in published.decisions if d.metrics_digest == evaluation.digest), None)
    return Model(evaluation, "challenger", decision, gate, training)
