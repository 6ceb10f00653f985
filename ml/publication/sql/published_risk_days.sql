-- Days for which risk scores were published, and the release that answers for each: the last publication's.
select distinct on (r.as_of) r.as_of, r.release_id::text, r.model_version
from published.publications p join published.releases r using (release_id)
where r.table_name = 'risk_scores'
order by r.as_of, p.token desc
