"""`make bench`: speed, memory and accuracy beside what they are compared with."""
