"""Virtual hosts to test in: an image made once, QEMU that runs it, a network between several, what goes in and out."""
