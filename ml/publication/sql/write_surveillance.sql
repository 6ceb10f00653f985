-- A month judged again replaces the row, unless a newer snapshot has judged it meanwhile; equal rows stay untouched.
insert into published.outcome_surveillance as held
    (model_name, model_version, month, outcome, horizon_days, as_of, release_id, snapshot_as_of, n, events,
     auroc, auroc_low, auroc_high, brier, brier_low, brier_high, slope, slope_low, slope_high,
     intercept, intercept_low, intercept_high, observed_expected, observed_expected_low, observed_expected_high,
     approved_auroc, alerts, reason)
values
    (%(model_name)s, %(model_version)s, %(month)s, %(outcome)s, %(horizon_days)s, %(as_of)s, %(release_id)s::uuid,
     %(snapshot_as_of)s, %(n)s, %(events)s,
     %(auroc)s, %(auroc_low)s, %(auroc_high)s, %(brier)s, %(brier_low)s, %(brier_high)s,
     %(slope)s, %(slope_low)s, %(slope_high)s, %(intercept)s, %(intercept_low)s, %(intercept_high)s,
     %(observed_expected)s, %(observed_expected_low)s, %(observed_expected_high)s,
     %(approved_auroc)s, %(alerts)s, %(reason)s)
on conflict (model_name, model_version, month, outcome) do update set
    horizon_days = excluded.horizon_days, as_of = excluded.as_of, release_id = excluded.release_id,
    snapshot_as_of = excluded.snapshot_as_of, n = excluded.n, events = excluded.events,
    auroc = excluded.auroc, auroc_low = excluded.auroc_low, auroc_high = excluded.auroc_high,
    brier = excluded.brier, brier_low = excluded.brier_low, brier_high = excluded.brier_high,
    slope = excluded.slope, slope_low = excluded.slope_low, slope_high = excluded.slope_high,
    intercept = excluded.intercept, intercept_low = excluded.intercept_low, intercept_high = excluded.intercept_high,
    observed_expected = excluded.observed_expected, observed_expected_low = excluded.observed_expected_low,
    observed_expected_high = excluded.observed_expected_high, approved_auroc = excluded.approved_auroc,
    alerts = excluded.alerts, reason = excluded.reason, judged_at = now()
where excluded.snapshot_as_of >= held.snapshot_as_of
  and (held.horizon_days, held.as_of, held.release_id, held.snapshot_as_of, held.n, held.events, held.auroc,
       held.observed_expected, held.slope, held.approved_auroc, held.alerts, held.reason)
      is distinct from
      (excluded.horizon_days, excluded.as_of, excluded.release_id, excluded.snapshot_as_of, excluded.n,
       excluded.events, excluded.auroc, excluded.observed_expected, excluded.slope, excluded.approved_auroc,
       excluded.alerts, excluded.reason)
