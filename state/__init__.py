"""What survives a re-exec, and how: records, descriptors, children, the state directory and the hand-off."""
