-- Keys and indexes of ddl.sql, made after the rows are in.

alter table meds_codes add primary key (code);
create index meds_events_recorded on meds_events (recorded_at);
