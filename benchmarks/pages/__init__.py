"""What people read of a benchmark: tables in Markdown, figures, one self-contained page."""
