"""What DLPE does before its networks: the published grid, resampling, slabs."""
