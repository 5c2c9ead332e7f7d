"""Lungs on chest CT."""
