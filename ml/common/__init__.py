"""What every stage needs and no stage owns: errors, atomic files, hashing, database access, progress."""
