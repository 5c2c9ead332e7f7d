"""The networks in PyTorch, the ONNX graphs around them, and their reference paths."""
