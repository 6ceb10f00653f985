insert into governance.erased_releases (erasure_id, release_id, rows)
values (%(erasure_id)s, %(release_id)s, %(rows)s)
on conflict do nothing
