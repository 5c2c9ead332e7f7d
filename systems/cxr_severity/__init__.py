"""Severity scoring on chest X-rays."""
