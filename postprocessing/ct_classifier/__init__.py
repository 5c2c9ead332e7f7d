"""What the CT classifier does after its network: Grad-CAM."""
