"""vdsmctl: the command line. Of the daemon it imports only the wire format, and it starts as fast as Python does."""
