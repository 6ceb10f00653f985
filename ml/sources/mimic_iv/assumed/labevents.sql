-- Known when stored, else at the end of the day the sample was taken.
select
    t.*,
    coalesce(
        t.storetime::timestamp, date_trunc('day', t.charttime)::timestamp + interval '1 day' - interval '1 microsecond'
    ) as recorded_at,
    false as removed
from {base} t
