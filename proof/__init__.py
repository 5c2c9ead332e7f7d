"""`hilum bench gpu-proof`: the whole path on a GPU, in stages, with one record and one page."""
