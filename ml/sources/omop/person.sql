-- A person's birth, sex, race and site: up to four events. What a later version no longer says is taken back.
-- Where month or day is unknown a birth is on 1 January or the first of the month: no event of that year precedes it.
select
    p.person_id::bigint as subject_id,
    e.time,
    coalesce(e.code, upper(e.what) || '//') as code,
    null::real as numeric_value,
    null::text as text_value,
    null::bigint as visit_id,
    p.recorded_at::timestamp as recorded_at,
    'person/' || p.person_id || '/' || e.what as source_key,
    p.removed or e.code is null as removed
from {person} p
left join {concept} gender on gender.concept_id = p.gender_concept_id
left join {concept} race on race.concept_id = p.race_concept_id
left join {care_site} site on site.care_site_id = p.care_site_id
cross join lateral (values
    (
        'birth',
        coalesce(
            p.birth_datetime::timestamp,
            timestamp '0001-01-01' + make_interval(
                years => p.year_of_birth - 1,
                months => coalesce(p.month_of_birth, 1) - 1,
                days => coalesce(p.day_of_birth, 1) - 1
            )
        ),
        'MEDS_BIRTH'
    ),
    (
        'gender',
        null,
        'GENDER//' || case p.gender_concept_id
            when 8507 then 'M'
            when 8532 then 'F'
            else coalesce(gender.concept_code, nullif(p.gender_source_value, ''))
        end
    ),
    ('race', null, 'RACE//' || coalesce(race.concept_name, nullif(p.race_source_value, ''))),
    ('site', null, 'SITE//' || coalesce(nullif(site.care_site_source_value, ''), site.care_site_name))
) as e (what, time, code)
where p.recorded_at >= {recorded_from} and p.recorded_at < {recorded_until}
