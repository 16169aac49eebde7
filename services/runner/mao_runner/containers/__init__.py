"""From a step to its container and back to the step's outcome."""
