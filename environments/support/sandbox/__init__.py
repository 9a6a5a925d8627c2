"""Programs from outside, judged in a process behind walls."""
