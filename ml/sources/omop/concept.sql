-- A concept's code as an event carries it, and the code of the standard concept that stands for it: itself where it is
-- marked as a valid standard one, else the one it maps to. Where it maps to several, a record is still one event: the
-- target in the concept's own domain goes first, then the lowest concept_id. Where the table marks no standard concepts
-- at all, every valid one may be a target, and one that maps to none stands for itself.
select
    c.*,
    c.vocabulary_id || '//' || c.concept_code as code,
    case
        when c.standard_concept = 'S' and coalesce(c.invalid_reason, '') = '' then c.vocabulary_id || '//' || c.concept_code
        else coalesce(
            (
                select target.vocabulary_id || '//' || target.concept_code
                from {concept_relationship} r
                join {base} target on target.concept_id = r.concept_id_2
                where r.concept_id_1 = c.concept_id
                    and r.relationship_id = 'Maps to'
                    and coalesce(r.invalid_reason, '') = ''
                    and target.concept_id <> 0
                    and coalesce(target.invalid_reason, '') = ''
                    and (
                        target.standard_concept = 'S'
                        or not exists (select from {base} marked where marked.standard_concept = 'S')
                    )
                order by coalesce(target.domain_id = c.domain_id, false) desc, target.concept_id
                limit 1
            ),
            case
                when coalesce(c.invalid_reason, '') = ''
                    and not exists (select from {base} marked where marked.standard_concept = 'S')
                    then c.vocabulary_id || '//' || c.concept_code
            end
        )
    end as standard_code
from {base} c
where c.concept_id <> 0
{once}
