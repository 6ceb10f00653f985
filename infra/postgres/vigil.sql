-- Vigil's own database, before its migrations.
revoke all on schema public from public;

-- vigil_migrate hands tables to vigil_publish and changes them later, so it must be able to act as that role.
grant vigil_publish to vigil_migrate;
