"""Before a network: readers of images and array functions."""
