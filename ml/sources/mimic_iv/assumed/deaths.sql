-- Known at the end of the day of death.
select t.*, t.dod::timestamp + interval '1 day' - interval '1 microsecond' as recorded_at, false as removed
from {base} t
where t.dod is not null
