"""From an image to its mask: the predictor, pictures of what it says, folders of images."""
