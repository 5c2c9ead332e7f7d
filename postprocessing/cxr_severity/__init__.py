"""What X-ray severity scoring does after its networks: lungs, zones, score."""
