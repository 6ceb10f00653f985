-- The code of a record. VIGIL_OMOP_CODES says which comes first:
--   source    as recorded: the source concept's code, else that of the standard concept;
--   standard  the code of the standard concept, else that of the one to which the source concept maps, else as recorded.
-- Last of all comes the source's own value, as SOURCE//value.
select
    t.*,
    coalesce(
        case when {standard_first} then coalesce(standard.standard_code, source.standard_code) end,
        source.code,
        standard.code,
        'SOURCE//' || coalesce(t.{source_value}, '')
    ) as code
from {base} t
left join {concept} source on source.concept_id = t.{source_concept_id}
left join {concept} standard on standard.concept_id = t.{concept_id}
