-- Tables of a schema (views and foreign tables have no indexes that one could see), about how many rows each holds
-- (null where nobody counted), and the first column of each whole index, with its kind.
select
    c.relname,
    case
        when c.relkind = 'p' then (
            select sum(nullif(leaf.reltuples, -1)) from pg_partition_tree(c.oid) tree
            join pg_class leaf on leaf.oid = tree.relid
            where tree.isleaf
        )
        else nullif(c.reltuples, -1)
    end::bigint,
    coalesce(array_agg(a.attname::text || ' ' || m.amname) filter (where a.attname is not null), '{}')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join pg_index i on i.indrelid = c.oid and i.indisvalid and i.indpred is null
left join pg_class ic on ic.oid = i.indexrelid
left join pg_am m on m.oid = ic.relam
left join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
where n.nspname = %s and c.relkind in ('r', 'p', 'm')
group by c.oid, c.relname, c.relkind, c.reltuples
