"""After a network: masks, zones, scores."""
