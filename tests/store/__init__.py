"""One contract for every kind of store, and what is particular to each."""
