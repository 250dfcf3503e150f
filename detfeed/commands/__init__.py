"""Commands: the command line `detfeed`, one module for each of its commands."""
