"""The XML of domains. Imported after the first answer: lxml is slow to load.

domain    made for a start                devices, nics, elements   what it is made of
running   read, of a domain that runs     pieces    found, and made anew for a change
settled   what has become of a change     transfer  for another host, or a later time
"""
