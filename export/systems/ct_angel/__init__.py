"""Networks of CT-Angel."""
