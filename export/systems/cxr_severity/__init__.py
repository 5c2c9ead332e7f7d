"""Networks of X-ray severity scoring."""
