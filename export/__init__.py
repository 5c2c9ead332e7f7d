"""From published networks to what Triton serves: ONNX files, configurations, certificates.

``repository.export_system`` does it all; ``declarations.write_declarations`` writes what needs no
network; ``check.check_repository`` looks for what is missing or does not fit; ``store`` keeps
imported weights. Only ``repository`` and what it uses import torch.
"""
