"""Generated studies: chest X-rays and chest CTs with the truth about them."""
