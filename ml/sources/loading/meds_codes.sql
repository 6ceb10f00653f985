-- What the codes mean; of two codes of the dataset that are one in Vigil's form, the first that is described.
insert into meds_codes (code, description, parent_codes)
select distinct on (c.code)
    c.code,
    c.description,
    (select array_agg(parent) from jsonb_array_elements_text(c.parent_codes::jsonb) parent)
from {staging} c
order by c.code, c.description is null, c.line
