"""Tools that know nothing of the method: files, devices, seeds, images, views."""
