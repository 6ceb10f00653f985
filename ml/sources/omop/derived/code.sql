-- A concept's code as Vigil writes it, and the code of the standard concept it maps to. Where it maps to several, the
-- one with the smallest id: a record is one event, whatever the vocabulary makes of it. Written out once per concept
-- (offset 0) and not once per record.
(
    select
        c.concept_id,
        c.vocabulary_id || '//' || c.concept_code as code,
        s.vocabulary_id || '//' || s.concept_code as standard_code
    from {concept} c
    left join (
        select r.concept_id_1, min(r.concept_id_2) as concept_id
        from {concept_relationship} r
        where r.relationship_id = 'Maps to' and coalesce(r.invalid_reason, '') = ''
        group by r.concept_id_1
    ) m on m.concept_id_1 = c.concept_id
    left join {concept} s on s.concept_id = m.concept_id
    where c.concept_id <> 0
    offset 0
)
