-- A visit at its start, and the end of a stay with the days it took: known once a version of the row has the end. An end
-- that lies after the version was recorded is a plan, not an end. An inpatient's version without an end takes an earlier
-- one's back. Concept ids: https://athena.ohdsi.org, domain Visit.
select
    t.person_id::bigint as subject_id,
    e.time,
    e.what || case t.visit_concept_id
        when 9201 then 'inpatient'
        when 9202 then 'outpatient'
        when 9203 then 'emergency'
        when 262 then 'emergency_inpatient'
        else 'other'
    end as code,
    e.days as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'visit_occurrence/' || t.visit_occurrence_id || e.suffix as source_key,
    t.removed or e.gone as removed
from {visit_occurrence} t
cross join lateral (values
    ('VISIT//', '', coalesce(t.visit_start_datetime::timestamp, t.visit_start_date::timestamp), null::real, false),
    (
        'VISIT_END//',
        '/end',
        coalesce(t.visit_end_datetime::timestamp, t.visit_end_date::timestamp),
        (extract(epoch from
            coalesce(t.visit_end_datetime::timestamp, t.visit_end_date::timestamp)
            - coalesce(t.visit_start_datetime::timestamp, t.visit_start_date::timestamp)
        ) / 86400)::real,
        coalesce(
            t.visit_end_date <= t.visit_start_date
            or coalesce(t.visit_end_datetime::timestamp, t.visit_end_date::timestamp) > t.recorded_at,
            true
        )
    )
) as e (what, suffix, time, days, gone)
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
    and (e.suffix = '' or not e.gone or t.visit_concept_id in (9201, 262))
