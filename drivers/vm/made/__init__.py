"""What is made for a machine on its host, and goes with it (`drivers.vm.belongings` keeps account of it).

taps     what plugs nics into bridges      payload  media made of files
layers   what is written to and thrown away   hostdevs   USB devices of the host
"""
