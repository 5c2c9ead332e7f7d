"""Find, start, watch and stop a Triton server; the code that runs inside it."""
