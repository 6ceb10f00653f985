-- No history: an observation period becomes known when it begins.
select
    t.*,
    t.observation_period_start_date::timestamp + interval '1 day' - interval '1 microsecond' as recorded_at,
    false as removed
from {base} t
