"""Networks of DLPE."""
