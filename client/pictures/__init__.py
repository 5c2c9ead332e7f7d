"""Pictures of results: one module for each system, drawn with the canvas they share."""
