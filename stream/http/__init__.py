"""HTTP: one server for health, metrics, the interface of shops and the console."""
