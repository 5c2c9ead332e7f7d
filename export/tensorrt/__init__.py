"""TensorRT: profiles, build plan, engines, and the check of every graph without a GPU."""
