"""Virtual machines: libvirt does the work, through one of the ways listed in `hypervisors`.

contract    states, moves, ends           machine     the machines we have, and what survives of them
driver      the owner, and the verbs      life        launching, watching, ending
connection  libvirt: there or not         link        libvirt itself (imported after the first answer)
console     guests' serial output         sampler     statistics, sampled in bulk
"""
