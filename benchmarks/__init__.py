"""Speed, load and accuracy, measured against the published procedure in the same run."""
