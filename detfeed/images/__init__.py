"""Images: from the bytes of a file to pixels on a canvas."""
