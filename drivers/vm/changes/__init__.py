"""Changes to running virtual machines, by subject. Imported after the first answer (`changing` puts them all together).

bench      what every change is made on: what is written down before, and what holds after
lookup     which device of a machine a caller means
drives     disks, CDs and floppies      nics    network cards, displays
resources  processors and memory        tuning  limits and policies
snapshots  new layers, quiesced         images  from what a caller says to a path
jobs       work on layers that lasts    merges, replicas    what begins and ends it
"""
