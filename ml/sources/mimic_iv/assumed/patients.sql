-- Known at the first discharge, else at the end of the anchor year.
select
    t.*,
    coalesce(
        a.first_discharge,
        timestamp '0001-01-01' + make_interval(years => t.anchor_year) - interval '1 microsecond'
    ) as recorded_at,
    false as removed
from {base} t
left join (select subject_id, min(dischtime)::timestamp as first_discharge from {admissions} x group by 1) a
    using (subject_id)
