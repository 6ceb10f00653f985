-- A patient's rows leave every release that is kept; how many, by release.
with gone as (
    delete from published.risk_scores where pseudonym = %(pseudonym)s returning release_id
)
select release_id, count(*) from gone group by release_id
