-- No history: a visit becomes known when it ends.
select
    t.*,
    greatest(t.visit_start_date::date, t.visit_end_date::date)::timestamp + interval '1 day' - interval '1 microsecond' as recorded_at,
    false as removed
from {base} t
