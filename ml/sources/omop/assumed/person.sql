-- No history: a person becomes known with the first observation period or visit, else in the year of birth.
select
    t.*,
    coalesce(least(o.first_day, v.first_day), timestamp '0001-01-01' + make_interval(years => t.year_of_birth - 1))
        + interval '1 day' - interval '1 microsecond' as recorded_at,
    false as removed
from {base} t
left join (
    select person_id, min(observation_period_start_date)::timestamp as first_day from {observation_period} x group by 1
) o using (person_id)
left join (
    select person_id, min(visit_end_date)::timestamp as first_day from {visit_occurrence} x group by 1
) v using (person_id)
