"""The configuration: `schema` says what there is, `load` reads and checks it."""
