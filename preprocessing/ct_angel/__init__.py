"""What CT-Angel does before its networks."""
