-- The same as cells.sql, of the rows of the log in `rows`.
select
    split_part(source_key, '/', 1) as kind,
    ((subject_id % $cells + $cells) % $cells)::integer as cell,
    count(*) as rows,
    sum(('0x' || left(md5(concat_ws(
        '|',
        subject_id::varchar,
        coalesce('v' || source_key, 'n'),
        coalesce('v' || epoch_us(time)::varchar, 'n'),
        coalesce('v' || code, 'n'),
        coalesce('v' || format('{:08x}', bits), 'n'),
        coalesce('v' || text_value, 'n'),
        coalesce('v' || visit_id::varchar, 'n')
    )), 15))::bigint)::hugeint as hash
from rows
group by 1, 2
