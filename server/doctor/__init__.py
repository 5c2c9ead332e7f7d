"""Whether a machine, its server, its engines and its repository fit each other."""
