select model_name, model_version, month, outcome, horizon_days, as_of, release_id::text, snapshot_as_of, n, events,
       auroc, auroc_low, auroc_high, brier, brier_low, brier_high, slope, slope_low, slope_high,
       intercept, intercept_low, intercept_high, observed_expected, observed_expected_low, observed_expected_high,
       approved_auroc, alerts, reason
from published.outcome_surveillance
where model_name = %(model_name)s
order by outcome, month, model_version
