"""The processes of an installation: each publishes its state every second, and anybody can read all of them."""
