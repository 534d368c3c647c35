"""What callers say of a machine, and the configuration that it becomes. Imported after the first answer.

params   from the parameters of a caller to the configuration     legacy  how devices were described before
devices  typed views of the structs of devices                    disks   their places and names
"""
