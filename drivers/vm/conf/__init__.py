"""What callers say of a machine, and the configuration that it becomes. Imported after the first answer.

params   from the parameters of a caller to the configuration     legacy  how devices were described before
view     typed looks at structs: numbers as text, and the like    devices  those of devices     disks  their places
"""
