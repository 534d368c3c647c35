"""Virtual machines: libvirt does the work.

driver      the owner of all machines         answers      what can be asked of them, from memory
works       all that is done to them          contract     their states, their ends, the settings
machine     one of them, as a record          machines     all of them, each with its checkpoint
connection  libvirt is there, or not          watch        how machines are, and why they have ended (endings)
sampler     their counters (vmstats)          console      what they write

Imported after the first answer:
desk        what everybody works at           deeds        create, destroy, pause, shut down (powerbutton) ...
launcher    their starts                      belongings   what they have on the host (made/)
hooked      the operator's scripts            monitors, revival, hastening
changes/    while they run                    travel/      to and from other hosts and files
agents/     in the guests                     hypervisor/  libvirt, in the daemon's own words
conf/       what callers say of them          xml/         what libvirt is told of them
"""
