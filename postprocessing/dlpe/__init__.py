"""What DLPE does after its networks: three directions, enhancement, baseline, lesions."""
