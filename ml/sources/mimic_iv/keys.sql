-- Keys and indexes of ddl.sql, made after the rows are in.

alter table patients add primary key (subject_id);
alter table admissions add primary key (hadm_id);
alter table diagnoses_icd add primary key (hadm_id, seq_num);
alter table procedures_icd add primary key (hadm_id, seq_num);
alter table labevents add primary key (labevent_id);
alter table d_labitems add primary key (itemid);
create index prescriptions_subject on prescriptions (subject_id);
