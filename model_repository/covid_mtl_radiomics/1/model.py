"""Runs the Python step that the catalog declares under this model's name."""

from hilum.server.python_step import TritonPythonModel

__all__ = ["TritonPythonModel"]
