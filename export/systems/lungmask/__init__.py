"""The network of lungmask."""
