"""How often the vote finds a known truth: on published data, and on made-up sets for each kind of fault."""
