"""What COVID-MTL does before its network: intake, lungs, resampling, radiomic features."""
