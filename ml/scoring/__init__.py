"""Scoring: a snapshot and a model's folder come in; per shard, one risk per subject and outcome goes out.

Who is out of scope is decided by the rule that made the labels (`ml.cohorts.eligible`), and the reason is kept.
"""

from ml.scoring.comparison import predict_with_champion
from ml.scoring.scores import (
    SCORE_SCHEMA,
    combine,
    provenance,
    score_day,
    score_path,
    score_shard,
    score_view,
)

__all__ = [
    "SCORE_SCHEMA",
    "combine",
    "predict_with_champion",
    "provenance",
    "score_day",
    "score_path",
    "score_shard",
    "score_view",
]
