"""The privileged helper: the few deeds that need root, done for the daemons, which are ordinary users.

Nothing of it is imported by what it helps, but for `supervdsm.client`; it imports nothing but itself and the standard library,
and what single actions need. Where to read:

    from bytes to an action    wire  server  callers  perform  slow  registry  errors  loop     (a test keeps them below 600
                               lines: whatever a caller sends gets no further than these before it is a checked call)
    the life of the helper     __main__  helper  settings  log  paths  privileges  daemon  release  replace  notify
    actions, and their parts   actions/, and the modules that are not named here
    the callers' side          client
"""
