"""Features of images, in which scores compare them."""
