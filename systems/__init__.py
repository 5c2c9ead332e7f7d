"""The systems, a folder each: options, flow, result, pictures, files, and what ties them.

A client finds them by the entry points ``hilum.systems`` of the package (`pyproject.toml`).
"""
