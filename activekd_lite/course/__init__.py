"""Running the notebooks, and making pages and handouts of them."""
