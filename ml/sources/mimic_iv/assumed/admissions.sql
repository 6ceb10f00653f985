-- Known at discharge.
select t.*, greatest(t.admittime, t.dischtime)::timestamp as recorded_at, false as removed
from {base} t
