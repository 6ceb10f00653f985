-- What the source holds now, counted and hashed by table and cell of subjects. Of each row its latest version; when a
-- row became known is left out of the hash, because a correction has a moment of its own.
with versions as (
    select distinct on (e.subject_id, e.source_key) e.*
    from ({events}) e
    where e.subject_id is not null and e.source_key is not null and e.recorded_at is not null
    order by e.subject_id, e.source_key, e.recorded_at desc, e.removed desc
)
select
    split_part(source_key, '/', 1) as kind,
    ((subject_id % {cells} + {cells}) % {cells})::integer as cell,
    count(*) as rows,
    sum(('x' || left(md5(concat_ws(
        '|',
        subject_id::text,
        coalesce('v' || source_key, 'n'),
        coalesce('v' || (extract(epoch from time) * 1000000)::bigint::text, 'n'),
        coalesce('v' || code, 'n'),
        coalesce('v' || encode(float4send(numeric_value), 'hex'), 'n'),
        coalesce('v' || text_value, 'n'),
        coalesce('v' || visit_id::text, 'n')
    )), 15))::bit(60)::bigint) as hash
from versions
where not removed
group by 1, 2
