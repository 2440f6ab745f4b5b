"""Tables: the run directory's files. `schema` says what the columns are, `storage` where the bytes go."""
