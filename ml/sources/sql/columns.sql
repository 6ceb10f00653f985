-- Columns of the tables and views of a schema, and whether this role may read them. pg_attribute rather than
-- information_schema.columns, which hides what a role may not read and would call it missing.
select
    c.relname,
    a.attname,
    has_schema_privilege(n.oid, 'usage') and has_column_privilege(c.oid, a.attnum, 'select')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f')
