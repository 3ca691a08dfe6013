"""The console: pages of the installation for a browser, made on the server."""
