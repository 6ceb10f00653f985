-- The newest version of each row, if it is not removed: what other rows look up.
(
    select {columns}
    from (select distinct on (v.{key}) v.* from {versions} v order by v.{key}, v.recorded_at desc, v.removed desc) t
    where not t.removed
)
