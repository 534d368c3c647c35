"""Machines that go to other hosts and into files, and come from there. Imported after the first answer.

moving      all of it, put together           arrivals   those that come from other hosts
departures  those that leave: to other hosts (migration), or into files (saving)
restoring   those that come from files        memory     such a file
lookout     how they are doing                carriers   processes that make the long calls (carrier)
limits      when to give up                   progress   what callers are told
"""
