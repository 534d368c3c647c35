"""The privileged helper: the few deeds that need root, done for the daemons, which are ordinary users.

Nothing of it is imported by what it helps, but for `supervdsm.client`; it imports nothing but itself and the standard library,
and what single actions need.
"""
