-- What became of a day's interconnections between two releases, by method; a release that is null has no rows.
select
    method as part,
    count(b.release_id) as rows_before,
    count(a.release_id) as rows_after,
    count(*) filter (where b.release_id is null) as added,
    count(*) filter (where a.release_id is null) as removed,
    count(*) filter (
        where a.release_id is not null and b.release_id is not null
          and (a.directed, a.weight, a.weight_meaning, a.ci_low, a.ci_high, a.p_adjusted, a.significant,
               a.n_source, a.n_target, a.n_both)
              is distinct from
              (b.directed, b.weight, b.weight_meaning, b.ci_low, b.ci_high, b.p_adjusted, b.significant,
               b.n_source, b.n_target, b.n_both)
    ) as changed,
    avg(abs(a.weight - b.weight)) as mean_change
from (select * from published.disease_interconnections where release_id = %(before)s::uuid) b
full join (select * from published.disease_interconnections where release_id = %(after)s::uuid) a
    using (method, source_code, target_code)
group by 1 order by 1
