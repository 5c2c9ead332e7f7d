"""Reference weights: harder synthetic images, recipes that train on them, and model cards."""
