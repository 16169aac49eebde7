"""Whether an image complies with the rules for tools: a trial run, and a report about it."""
