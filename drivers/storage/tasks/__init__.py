"""Tasks: long work on storage that a client can ask after, stop, and count on.

`contract` has the life cycle, `record` what is kept of a task, `registry` what its steps may be, `work` the children that do
what takes long, `engine` the owner that runs it all, `dump` the form in which other hosts read it.
"""
