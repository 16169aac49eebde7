"""The compliance check of an image with the rules for tools: a trial run and a report."""
