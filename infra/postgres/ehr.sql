-- Schemas of the EHR database. {schema} is the schema of the source's tables.
revoke all on schema public from public;

create schema if not exists {schema} authorization vigil_load;
grant usage on schema {schema} to vigil_extract;
grant select on all tables in schema {schema} to vigil_extract;
alter default privileges for role vigil_load in schema {schema} grant select on tables to vigil_extract;

-- The demo hospital's truth: its owner's alone.
create schema if not exists truth authorization vigil_truth;
