-- The events of some cells of subjects.
select e.* from ({events}) e where (e.subject_id % {cells} + {cells}) % {cells} in ({wanted})
