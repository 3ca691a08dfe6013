"""What is measured, by the names and conventions of Prometheus."""
