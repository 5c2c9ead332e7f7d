"""COVID-19 on chest CT slices, with Grad-CAM."""
