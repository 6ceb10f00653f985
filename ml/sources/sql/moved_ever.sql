-- Records that ever changed their person: few, so that a base load looks up their versions by key. As an array, because
-- the planner takes a join for one of all rows with all rows. Records of several versions come first: the index alone
-- knows them, and most records have one.
t.{key} = any(array(
    select v.{key}
    from {versions} v
    where v.{key} = any(array(select r.{key} from {versions} r group by r.{key} having count(*) > 1))
    group by v.{key}
    having min(v.{subject}) <> max(v.{subject}) or count(v.{subject}) <> count(*)
))
