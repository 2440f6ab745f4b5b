"""Items: what is asked. `types` says what an item is, `load` reads files, `validate` finds what is wrong with them."""
