"""Parenchyma enhancement on chest CT, DLPE."""
