"""Networks, recipes and checkpoint readers, a folder for each system."""
