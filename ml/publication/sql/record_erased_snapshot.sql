insert into governance.erased_snapshots (erasure_id, as_of, old_digest, new_digest)
values (%(erasure_id)s, %(as_of)s, %(old)s, %(new)s)
on conflict do nothing
