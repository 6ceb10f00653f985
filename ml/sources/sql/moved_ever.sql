-- Records that ever changed their person: few, so that a base load looks up their versions by key. As an array, because
-- the planner takes a join for one of all rows with all rows.
t.{key} = any(array(
    select v.{key} from {versions} v group by v.{key} having min(v.{subject}) <> max(v.{subject}) or count(v.{subject}) <> count(*)
))
