"""Reports: what people read. Functions of the tables alone."""
