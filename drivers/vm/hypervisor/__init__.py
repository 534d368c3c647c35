"""libvirt, in the daemon's own words. Imported after the first answer.

link       an open connection, which has all the others       kinds   the ways to run machines, as data
domains    handles of domains, and what errors mean           events  what libvirt tells by itself
blocks, devices, tuning, jobs, secrets, agent                 what it does with one subject
"""
