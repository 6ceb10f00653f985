-- Versions recorded in a span of days; and for each version a tombstone for every other person whom an earlier version
-- of the same record named, at the very instant of the version. Where the source itself has, at that instant, a version
-- for that person (a tombstone of its own, say), that one counts alone.
-- The span stands inside both branches, so that a night reads its own rows and, by the key, their earlier versions.
(
    select {columns}, t.recorded_at, t.removed
    from {versions} t
    where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
    union all
    (
        select distinct on (o.{subject}, t.{key}, t.recorded_at) {moved_columns}, t.recorded_at, true
        from {versions} t
        join {versions} o
            on o.{key} = t.{key} and o.recorded_at < t.recorded_at and o.{subject} is distinct from t.{subject}
        where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until} and {moved_ever}
            and o.{subject} is not null
            and not exists (
                select
                from {versions} x
                -- between, not =, which would make the planner think that recorded_at alone finds the row
                where x.{key} = t.{key} and x.recorded_at between t.recorded_at and t.recorded_at
                    and x.{subject} = o.{subject}
            )
        order by o.{subject}, t.{key}, t.recorded_at, t.{subject}
    )
)
