"""What CT-Angel does after its networks: boxes and the patient's decision."""
