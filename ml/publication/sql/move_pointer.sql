-- One compare-and-set: only the holder of the fence moves the pointer, and never to an older day.
-- The share lock makes a rival that is just acquiring the fence wait until this has been committed.
insert into published.current_releases as c (table_name, release_id, as_of, token)
select r.table_name, r.release_id, r.as_of, f.token
from published.releases r
join published.fences f on f.table_name = r.table_name and f.as_of = r.as_of
where r.release_id = %(release_id)s and f.token = %(token)s
for share of f
on conflict (table_name) do update
    set release_id = excluded.release_id, as_of = excluded.as_of, token = excluded.token, moved_at = now()
    where %(backwards)s or c.as_of < excluded.as_of or (c.as_of = excluded.as_of and c.token <= excluded.token)
returning release_id::text
