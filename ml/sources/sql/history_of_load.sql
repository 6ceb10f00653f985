-- What the newest load of a layout into this schema said of its history.
select history from {loads} where layout = %s order by loaded_at desc limit 1
