"""One way to load a deployment, to count, and to say how sure a figure is, for all systems.

`loops` makes load and gives `record.Round`s; `statistics` draws figures from them; `record` is what
is written, and what the tables, figures and pages are drawn from.
"""
