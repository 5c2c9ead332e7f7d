"""The network of the CT classifier."""
