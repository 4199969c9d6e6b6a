"""A web page about one run, or about several runs side by side."""
