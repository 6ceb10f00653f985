insert into governance.erased_models (erasure_id, model_name, model_version, split)
values (%(erasure_id)s, %(model)s, %(version)s, %(split)s)
on conflict do nothing
