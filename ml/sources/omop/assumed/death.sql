-- No history: a death becomes known at the end of its day.
select
    t.*,
    t.death_date::timestamp + interval '1 day' - interval '1 microsecond' as recorded_at,
    false as removed
from {base} t
