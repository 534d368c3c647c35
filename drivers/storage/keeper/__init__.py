"""The keeper: a child process that holds this host's leases on storage, and gives none back before the work under it has ended.

    daemon ==socket==> keeper ==registered==> sanlock ==> the domain's `ids` and `leases`
                         |---> the children of tasks, should the lease be lost or the daemon be gone

It is the keeper, and not the daemon, that sanlock knows and ends when a lease is lost: the daemon and its guests live on. It
outlives a re-exec of the daemon, and the leases with it: same owner, same generation. Where there is no sanlock, a lock of the
kernel on the domain's `leases` (flock) keeps out whoever is on the same machine, and nobody else.
"""
