"""Where things run: the embedded cluster and how parts are placed."""
