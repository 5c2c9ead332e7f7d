"""Layers and initial weights that networks of several systems share."""
