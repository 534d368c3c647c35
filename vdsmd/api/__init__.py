"""The public API: connections, the wire format, the verb table and the verbs.

It promises that importing this package imports none of its modules: the daemon names what its first answer needs, and
the command line takes the wire format alone.
"""
