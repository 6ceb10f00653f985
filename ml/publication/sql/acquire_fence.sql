insert into published.fences as f (table_name, as_of, token, holder)
values (%(table)s, %(as_of)s, nextval('published.fence_tokens'), %(holder)s)
on conflict (table_name, as_of) do update
    set token = nextval('published.fence_tokens'), holder = excluded.holder, acquired_at = now()
returning token
