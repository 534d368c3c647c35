"""The storage driver: file domains, pools, images and tasks, without a system call on storage in the daemon.

driver       the owner of it all                record       what survives a re-exec
contract     words, numbers, settings           parts        all that is made after the first answer
drives       from a machine's configuration to the path of its data

connections/ storage that is mounted, or linked to
helpers/     the helper processes, one for each directory of storage, from the daemon's side
outside/     the program that they run: whatever is done on storage is done there
domains/     finding, making, describing and watching storage domains
pools/       which domains belong together, and being the one host that may change them (the SPM)
leases/      who holds which lease, and keeper/, the process that holds this host's
images/      images and volumes: what is asked of them, and the plans of the tasks that change them
tasks/       long work: planned, written down, done by children, taken back

It promises that only driver, record and what they need are imported before the first answer. `toil` and
`pour` are programs of their own.
"""
