-- What is wrong with staged interconnections: every column but the first counts rows and must be 0.
select
    count(*) as "rows",
    count(*) filter (where release_id <> %(release_id)s or as_of <> %(as_of)s) as of_another_release_or_day,
    count(*) filter (where snapshot_digest <> %(snapshot_digest)s) as of_another_snapshot,
    count(*) filter (where least(n_source, n_target, n_both) < %(min_cell)s) as with_a_small_count,
    count(*) filter (where n_both > least(n_source, n_target)) as with_impossible_counts,
    count(*) filter (
        where weight in ('NaN', 'Infinity', '-Infinity') or ci_low > ci_high or ci_low = 'NaN' or ci_high = 'NaN'
    ) as with_an_impossible_weight,
    count(*) filter (where p_adjusted < 0 or p_adjusted > 1) as with_an_impossible_p_value,
    count(*) filter (
        where source_code = '' or target_code = '' or source_code = target_code or weight_meaning = ''
    ) as without_a_pair
from {staging}
