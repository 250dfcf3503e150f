"""Check: what is wrong with a data set, and the command line."""
