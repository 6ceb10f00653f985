insert into governance.erasures (erasure_id, erased_by, reason, log_rows, partitions, published, files)
values (%(erasure_id)s, %(erased_by)s, %(reason)s, %(log_rows)s, %(partitions)s, %(published)s, %(files)s)
on conflict do nothing
