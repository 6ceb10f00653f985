"""The one object that every method yields, and its file."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ml.common.errors import NotFoundError
from ml.common.files import write_bytes

SIGNIFICANT = 0.05  # level of the adjusted p-value
Z95 = 1.959963984540054  # standard normal quantile of a two-sided 95 % interval
_METADATA = b"vigil.interconnections"

MATRIX_SCHEMA = pa.schema(
    [
        pa.field("source_code", pa.string(), nullable=False),
        pa.field("target_code", pa.string(), nullable=False),
        pa.field("directed", pa.bool_(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("weight_meaning", pa.string(), nullable=False),
        pa.field("ci_low", pa.float64()),
        pa.field("ci_high", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("p_adjusted", pa.float64()),
        pa.field("significant", pa.bool_()),
        pa.field("n_source", pa.int64(), nullable=False),
        pa.field("n_target", pa.int64(), nullable=False),
        pa.field("n_both", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Provenance:
    """Where a matrix comes from.

    Attributes:
        method: name in METHODS.
        as_of, snapshot_digest: the snapshot.
        parameters: everything that was chosen.
        patients: patients counted over.
        codes_left_out: categories dropped because too few patients have them.
        pairs_tested: pairs in the family whose p-values were adjusted together; 0 where nothing was tested.
        pairs_left_out: pairs seen in at least one patient, not in the matrix because of too small a count.
    """

    method: str
    as_of: date
    snapshot_digest: str
    parameters: dict[str, float | int | str]
    patients: int
    codes_left_out: int
    pairs_tested: int
    pairs_left_out: int


@dataclass(frozen=True)
class Pairs:
    """The pairs of a matrix, one array element each, sorted by (source, target). NaN where a method gives no value.

    Attributes:
        source, target: (E,) int32, indices into the matrix's codes; source < target where undirected.
        weight: (E,) float64.
        ci_low, ci_high: (E,) float64, 95 % interval of the weight.
        p_value, p_adjusted: (E,) float64; 0 where below the least positive float.
        n_both: (E,) int64, patients who ever had both.
    """

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: NDArray[np.float64]
    ci_low: NDArray[np.float64]
    ci_high: NDArray[np.float64]
    p_value: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    n_both: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class InterconnectionMatrix:
    """Weights between disease categories.

    Attributes:
        codes: (C) categories, sorted; some may have no pair.
        patients_by_code: (C,) int64.
        pairs: what is known; a pair that is absent was too rare to say anything.
        directed: whether (source, target) differs from (target, source); undirected pairs stand once.
        weight_meaning: what a weight is, in words.
        provenance: where it comes from.
    """

    codes: tuple[str, ...]
    patients_by_code: NDArray[np.int64]
    pairs: Pairs
    directed: bool
    weight_meaning: str
    provenance: Provenance

    def dense(self, absent: float = np.nan) -> NDArray[np.float64]:
        """(C, C) weights, symmetric where undirected; ``absent`` where there is no pair and on the diagonal."""
        weights = np.full((len(self.codes),) * 2, absent)
        weights[self.pairs.source, self.pairs.target] = self.pairs.weight
        if not self.directed:
            weights[self.pairs.target, self.pairs.source] = self.pairs.weight
        return weights

    def table(self) -> pa.Table:
        """One row per pair in ``MATRIX_SCHEMA``, the rest as JSON in the schema's metadata."""
        pairs, codes = self.pairs, pa.array(self.codes, pa.string())
        constant = {"directed": self.directed, "weight_meaning": self.weight_meaning}
        columns = {
            "source_code": codes.take(pa.array(pairs.source)),
            "target_code": codes.take(pa.array(pairs.target)),
            **{name: pa.array([value] * len(pairs)) for name, value in constant.items()},
            "weight": pa.array(pairs.weight),
            **{name: _nullable(getattr(pairs, name)) for name in ("ci_low", "ci_high", "p_value", "p_adjusted")},
            "significant": pa.array(pairs.p_adjusted < SIGNIFICANT, mask=np.isnan(pairs.p_adjusted)),
            "n_source": pa.array(self.patients_by_code[pairs.source]),
            "n_target": pa.array(self.patients_by_code[pairs.target]),
            "n_both": pa.array(pairs.n_both),
        }
        schema = MATRIX_SCHEMA.with_metadata({_METADATA: json.dumps(self._about(), sort_keys=True).encode()})
        return pa.table([columns[name].cast(MATRIX_SCHEMA.field(name).type) for name in MATRIX_SCHEMA.names], schema)

    def save(self, path: Path) -> None:
        """Write one Parquet file, whole or not at all; equal matrices give equal bytes."""
        buffer = io.BytesIO()
        pq.write_table(self.table(), buffer, compression="zstd")
        write_bytes(path, buffer.getvalue())

    @staticmethod
    def load(path: Path) -> InterconnectionMatrix:
        """Read what ``save`` wrote.

        Raises:
            NotFoundError: there is no such file, or it holds no matrix.
        """
        if not path.is_file():
            raise NotFoundError(f"no interconnections at {path}", "run the night of that day (DAG nightly)")
        table = pq.read_table(path)
        if _METADATA not in (table.schema.metadata or {}):
            raise NotFoundError(f"{path} holds no interconnection matrix", "remove it and compute it again")
        about = json.loads(table.schema.metadata[_METADATA])
        provenance = about["provenance"] | {"as_of": date.fromisoformat(about["provenance"]["as_of"])}
        return InterconnectionMatrix(
            codes=tuple(about["codes"]),
            patients_by_code=np.array(about["patients_by_code"], dtype=np.int64),
            pairs=_pairs(table, {code: index for index, code in enumerate(about["codes"])}),
            directed=about["directed"],
            weight_meaning=about["weight_meaning"],
            provenance=Provenance(**provenance),
        )

    def _about(self) -> dict[str, object]:
        return {
            "codes": list(self.codes),
            "patients_by_code": self.patients_by_code.tolist(),
            "directed": self.directed,
            "weight_meaning": self.weight_meaning,
            "provenance": asdict(self.provenance) | {"as_of": self.provenance.as_of.isoformat()},
        }


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))


def _pairs(table: pa.Table, index: dict[str, int]) -> Pairs:
    def number(name: str) -> NDArray[np.float64]:
        return table[name].to_numpy().astype(np.float64)

    def position(name: str) -> NDArray[np.int32]:
        return np.array([index[code] for code in table[name].to_pylist()], dtype=np.int32)

    return Pairs(
        position("source_code"),
        position("target_code"),
        number("weight"),
        number("ci_low"),
        number("ci_high"),
        number("p_value"),
        number("p_adjusted"),
        table["n_both"].to_numpy().astype(np.int64),
    )
