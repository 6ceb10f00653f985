-- Known when the admission ends.
select t.*, greatest(a.admittime, a.dischtime)::timestamp as recorded_at, false as removed
from {base} t
left join {admissions} a using (subject_id, hadm_id)
